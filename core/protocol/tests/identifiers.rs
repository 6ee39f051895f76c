//! Identifiers come from texts by published rules.

use zipnet_core::id::{UNIVERSE, UniqueId};

#[test]
fn the_universe_is_the_id_of_its_text() {
    assert_eq!(
        UNIVERSE,
        UniqueId::from_text("mosaik.universe"),
        "{:02x?}",
        UniqueId::from_text("mosaik.universe").0
    );
}
