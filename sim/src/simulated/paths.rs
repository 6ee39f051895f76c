//! Carries cut and bad paths over to the simulated network.

use super::Machines;
use crate::network::Ways;
use crate::wires::Paths;

impl Machines {
    /// Makes the network like this.
    pub(super) fn rewire(&mut self, wanted: Paths) {
        let earlier = core::mem::replace(&mut self.paths, wanted);
        self.apply_cuts(earlier.clone());
        self.apply_models(&earlier);
    }

    fn apply_cuts(&self, mut earlier: Paths) {
        let (network, index) = (self.simulation.network(), |node| self.index(node));
        let over: Vec<_> = earlier.cut.difference(&self.paths.cut).copied().collect();
        for (from, to) in over {
            if earlier.cut.contains(&(from, to)) {
                // Mending is for both directions.
                network.mend(index(from), index(to));
                earlier.cut.remove(&(from, to));
                earlier.cut.remove(&(to, from));
            }
        }
        for (from, to) in self.paths.cut.difference(&earlier.cut) {
            network.cut(index(*from), index(*to), Ways::One);
        }
    }

    fn apply_models(&self, earlier: &Paths) {
        if self.paths.models == earlier.models {
            return;
        }
        let network = self.simulation.network();
        network.reset_models();
        for ((from, to), model) in &self.paths.models {
            network.set_model(self.index(*from), self.index(*to), *model);
        }
    }
}
