//! What MR_TD a firmware image will have.

use clap::{ArgMatches, Command};
use serde_json::json;
use zipnet_tdx::firmware::{FIRMWARE_BYTES_MAX, Firmware, Order};

use super::{Outcome, file_argument, is_json, line, path, read};
use crate::flags;

pub(super) fn command() -> Command {
    Command::new("measure")
        .about("Say what MR_TD a firmware image will have, for both orders in which hosts add pages")
        .arg(file_argument("firmware", "FIRMWARE", "The image, like OVMF.inteltdx.fd").required(true))
        .arg(flags::format_argument())
}

/// Measures an image.
///
/// # Errors
/// If it cannot be read, or is none.
pub(super) fn measure(matches: &ArgMatches) -> Outcome {
    let path = path(matches, "firmware");
    let image = read(path, FIRMWARE_BYTES_MAX)?;
    let firmware =
        Firmware::read(&image).map_err(|reason| format!("{}: failed to {reason}", path.display()))?;
    let values = Order::ALL.map(|order| (order.name(), firmware.mr_td(order)));
    if is_json(matches) {
        let values: serde_json::Map<_, _> =
            values.iter().map(|(order, value)| ((*order).to_owned(), json!(value))).collect();
        flags::print(&format!("{}\n", json!({ "mr_td": values, "sections": firmware.sections() })));
        return Ok(0);
    }
    let mut text = String::new();
    for (order, value) in values {
        line(&mut text, format_args!("{order:<12}  {value}"));
    }
    for section in firmware.sections() {
        let treated = match (section.is_measured, section.is_added) {
            (true, _) => "measured",
            (false, true) => "address measured, content not",
            (false, false) => "not measured",
        };
        let (kind, address, memory) = (section.kind, section.address, section.memory);
        line(&mut text, format_args!("  {kind:<13} {memory:#9x} bytes at {address:#11x}  {treated}"));
    }
    flags::print(&text);
    Ok(0)
}
