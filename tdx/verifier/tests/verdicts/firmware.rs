//! What firmware measures: small images made here, the values of a second implementation, and its answers.

use std::path::Path;
use std::process::Command;

use zipnet_tdx::firmware::{Firmware, Order};
use zipnet_tdx_mock::firmware::{Section, image, sections};

/// From the second implementation, `tests/reference/mr_td.py`.
const KNOWN: [(Order, &str); 2] = [
    (
        Order::PageByPage,
        "b260f27a831eed46d651e07d8277789ef45f6726467e96d59af4b33203da03c3b43cfd25969c9c568649fc5a444b32a9",
    ),
    (
        Order::AddsFirst,
        "aab441501656564d844e3211f0d93e4515c8ae39933e8e71e8f2fbb84fd3e3cb56713630f4e3a9cca0d3776aaf03a870",
    ),
];

#[test]
fn an_image_has_the_known_values() {
    let image = image(&sections());
    let firmware = Firmware::read(&image).unwrap();
    for (order, known) in KNOWN {
        assert_eq!(firmware.mr_td(order).to_string(), known, "{}", order.name());
    }
    let kinds: Vec<_> =
        firmware.sections().iter().map(|one| (one.kind, one.is_added, one.is_measured)).collect();
    assert_eq!(
        kinds,
        [
            ("BFV", true, true),
            ("CFV", true, true),
            ("TEMP_MEM", true, false),
            ("TD_HOB", true, false),
            ("PERM_MEM", false, false)
        ]
    );
}

#[test]
fn a_value_covers_what_is_measured_and_nothing_else() {
    let value = |sections: &[Section]| Firmware::read(&image(sections)).unwrap().mr_td(Order::PageByPage);
    let known = value(&sections());
    let changed = |change: fn(&mut Vec<Section>)| {
        let mut sections = sections();
        change(&mut sections);
        value(&sections)
    };
    assert_ne!(changed(|sections| sections[0].content[5_000] ^= 1), known);
    assert_ne!(changed(|sections| sections[1].content[999] ^= 1), known);
    assert_ne!(changed(|sections| sections[1].address += 4_096), known);
    assert_ne!(changed(|sections| sections[2].memory += 4_096), known);
    assert_ne!(changed(|sections| sections[1].attributes = 0), known);
    // Not measured: the content of the hand-off block, and memory that is accepted later.
    assert_eq!(changed(|sections| sections[3].content[7] ^= 1), known);
    assert_eq!(changed(|sections| sections[4].memory += 4_096), known);
}

/// What is said about an image, and how it comes to that.
type Wrong = (&'static str, fn(&mut Vec<Section>));

#[test]
fn what_is_wrong_with_an_image_is_said() {
    let cases: &[Wrong] = &[
        ("does not fit its", |sections| sections[0].address += 1),
        ("does not fit its", |sections| sections[0].memory = 4_096),
        ("does not fit its", |sections| sections[0].memory += 1),
        ("does not fit its", |sections| sections[0].address = u64::MAX - 4_095),
        ("bytes of memory are to be added", |sections| sections[2].memory = 2 << 30),
        ("0 sections; expected 1 to 64", Vec::clear),
    ];
    for (expected, change) in cases {
        let mut sections = sections();
        change(&mut sections);
        let reason = Firmware::read(&image(&sections)).unwrap_err().to_string();
        assert!(
            reason.contains(expected) && reason.starts_with("read the firmware: "),
            "{expected}: {reason}"
        );
    }
    let whole = image(&sections());
    let not_built = "read the firmware: no TDVF metadata in it: it is not built for TDX";
    for image in [vec![], vec![0; 31], vec![0; 1 << 16], whole[..whole.len() - 1].to_vec()] {
        assert_eq!(Firmware::read(&image).unwrap_err().to_string(), not_built);
    }
    let mut longer = whole.clone();
    let metadata = whole.windows(4).position(|bytes| bytes == b"TDVF").unwrap();
    longer[metadata + 20..metadata + 24].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(Firmware::read(&longer).unwrap_err().to_string().contains("goes beyond the end"));
}

#[test]
#[expect(clippy::print_stderr, reason = "whoever runs the test should know what it did not do")]
#[expect(clippy::disallowed_methods, reason = "the reference reads a file")]
fn the_python_reference_measures_the_same() {
    let image = image(&sections());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = folder.join("firmware.fd");
    std::fs::write(&file, &image).unwrap();
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/mr_td.py");
    match Command::new("python3").arg("-B").arg(reference).arg(&file).output() {
        Err(reason) => eprintln!("python3 cannot be run ({reason}): the reference was not consulted"),
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let firmware = Firmware::read(&image).unwrap();
            let expected: String = Order::ALL
                .iter()
                .map(|order| format!("{} {}\n", order.name(), firmware.mr_td(*order)))
                .collect();
            assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
        }
    }
}
