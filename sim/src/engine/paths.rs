//! Carries cut and bad paths over to the simulated network.

use super::Run;
use super::fault::Trouble;
use crate::network::Ways;
use crate::wires::Paths;

impl Run<'_> {
    /// Makes the network as steps and faults want it.
    pub(super) fn rewire(&mut self) {
        let hindered = self.faults.holds().filter_map(|hold| match hold.trouble {
            Trouble::Hindered(hindrance) => Some((hold.node, hindrance)),
            Trouble::Dying { .. } | Trouble::Down | Trouble::Paused => None,
        });
        let wanted = self.wires.paths(hindered);
        let earlier = core::mem::replace(&mut self.paths, wanted);
        self.apply_cuts(earlier.clone());
        self.apply_models(&earlier);
    }

    fn apply_cuts(&self, mut earlier: Paths) {
        let (network, index) = (self.cluster.simulation.network(), |node| self.cluster.index(node));
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
        let network = self.cluster.simulation.network();
        network.reset_models();
        for ((from, to), model) in &self.paths.models {
            network.set_model(self.cluster.index(*from), self.cluster.index(*to), *model);
        }
    }
}
