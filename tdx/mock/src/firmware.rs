//! Small images of firmware, laid out as the tools of EDK II do it. They are measured and never run.

/// A part of an image.
#[derive(Clone, Debug)]
pub struct Section {
    /// What of it is in the image.
    pub content: Vec<u8>,
    /// Where it goes in the guest's memory.
    pub address: u64,
    /// How many bytes of memory it has.
    pub memory: u64,
    /// What it is for: 0 BFV, 1 CFV, 2 TD_HOB, 3 TEMP_MEM, 4 PERM_MEM.
    pub kind: u32,
    /// 1: the content is measured. 2: the guest accepts the memory later.
    pub attributes: u32,
}

/// One of each kind: measured, added without being measured, and left for later.
#[must_use]
pub fn sections() -> Vec<Section> {
    let content = |len: u32, factor: u32| (0..len).map(|at| (at * factor / 256) as u8).collect();
    vec![
        Section { content: content(8_192, 77), address: 0xffff_e000, memory: 8_192, kind: 0, attributes: 1 },
        // Its memory is longer than its content, which ends in the middle of 256 bytes.
        Section { content: content(1_000, 91), address: 0xffff_8000, memory: 12_288, kind: 1, attributes: 1 },
        Section { content: vec![], address: 0x81_0000, memory: 4_096, kind: 3, attributes: 0 },
        Section { content: content(4_096, 13), address: 0x80_9000, memory: 8_192, kind: 2, attributes: 0 },
        Section { content: vec![], address: 0, memory: 0x80_0000, kind: 4, attributes: 2 },
    ]
}

/// An image with these sections.
///
/// # Panics
/// If its parts do not add up.
#[must_use]
pub fn image(sections: &[Section]) -> Vec<u8> {
    let mut image = Vec::new();
    let mut metadata = Vec::new();
    metadata.extend(b"TDVF");
    metadata.extend((16 + 32 * sections.len() as u32).to_le_bytes());
    metadata.extend(1_u32.to_le_bytes());
    metadata.extend((sections.len() as u32).to_le_bytes());
    for section in sections {
        metadata.extend((image.len() as u32).to_le_bytes());
        metadata.extend((section.content.len() as u32).to_le_bytes());
        metadata.extend(section.address.to_le_bytes());
        metadata.extend(section.memory.to_le_bytes());
        metadata.extend(section.kind.to_le_bytes());
        metadata.extend(section.attributes.to_le_bytes());
        image.extend(&section.content);
    }
    let begin = image.len();
    image.extend(metadata);
    // An entry of another kind, the entry for the metadata, and the footer, each read from its end.
    let other = [&[0xaa; 6][..], &24_u16.to_le_bytes(), &[0xbb; 16]].concat();
    let (len, footer_len) = (22_u16, 18_u16);
    let table_len = other.len() as u16 + len + footer_len;
    let end = begin + 16 + 32 * sections.len() + usize::from(table_len) + 32;
    let guid = |first: u32, second: u16, third: u16, rest: u64| {
        [&first.to_le_bytes()[..], &second.to_le_bytes(), &third.to_le_bytes(), &rest.to_be_bytes()].concat()
    };
    image.extend(((end - begin) as u32).to_le_bytes());
    image.extend(len.to_le_bytes());
    image.extend(guid(0xe47a_6535, 0x984a, 0x4798, 0x865e_4685_a7bf_8ec2));
    image.extend(other);
    image.extend(table_len.to_le_bytes());
    image.extend(guid(0x96b5_82de, 0x1fb2, 0x45f7, 0xbaea_a366_c55a_082d));
    image.extend([0; 32]);
    assert_eq!(image.len(), end);
    image
}
