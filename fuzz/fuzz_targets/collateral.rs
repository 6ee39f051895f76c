#![no_main]

#[global_allocator]
static METER: zipnet_fuzz_targets::memory::Meter = zipnet_fuzz_targets::memory::Meter;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    (zipnet_fuzz_targets::target("collateral").run)(bytes);
});
