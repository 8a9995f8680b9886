//! DER (X.690): just what certificates need.

/// DER: tag, length, content.
pub(crate) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    let mut der = match content.len() {
        0..128 => vec![tag, low],
        128..256 => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    der.extend(content);
    der
}

pub(crate) fn oid(arcs: &[u32]) -> Vec<u8> {
    let mut content = vec![u8::try_from(arcs[0] * 40 + arcs[1]).unwrap()];
    for arc in &arcs[2..] {
        let groups = (0..5).rev().map(|i| (arc >> (7 * i)) & 0x7f).skip_while(|g| *g == 0).collect::<Vec<_>>();
        let groups = if groups.is_empty() { vec![0] } else { groups };
        let last = groups.len() - 1;
        content.extend(groups.iter().enumerate().map(|(i, g)| *g as u8 | if i < last { 0x80 } else { 0 }));
    }
    tlv(6, &[&content])
}

pub(crate) fn name(common: &str) -> Vec<u8> {
    let attribute = tlv(0x30, &[&oid(&[2, 5, 4, 3]), &tlv(0x0c, &[common.as_bytes()])]);
    tlv(0x30, &[&tlv(0x31, &[&attribute])])
}

pub(crate) fn extension(id: &[u32], critical: bool, value: &[u8]) -> Vec<u8> {
    let flag: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
    tlv(0x30, &[&oid(id), flag, &tlv(4, &[value])])
}
