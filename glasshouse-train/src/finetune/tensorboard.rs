//! TensorBoard event files: TFRecord frames of `Event` protobufs with scalar summaries. Written here, because the format is
//! small (tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto, tensorflow/core/lib/io/record_writer.h)
//! and the crate for it is old and heavy.

use std::io::{self, Write};

/// Writes scalars for TensorBoard.
pub struct EventWriter<W: Write> {
    out: W,
}

impl<W: Write> EventWriter<W> {
    /// Begins a file. Its name must contain `tfevents`. `time` is in seconds since 1970.
    ///
    /// # Errors
    /// The writer's.
    pub fn new(out: W, time: f64) -> io::Result<Self> {
        let mut writer = Self { out };
        let mut event = fixed64(WALL_TIME, time);
        event.extend(bytes(FILE_VERSION, b"brain.Event:2"));
        writer.record(&event)?;
        Ok(writer)
    }

    /// Adds values of one step.
    ///
    /// # Errors
    /// The writer's.
    pub fn scalars(&mut self, time: f64, step: u64, values: &[(&str, f32)]) -> io::Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            let mut entry = bytes(TAG, tag.as_bytes());
            entry.push(SIMPLE_VALUE << 3 | 5);
            entry.extend(value.to_le_bytes());
            summary.extend(bytes(VALUE, &entry));
        }
        let mut event = fixed64(WALL_TIME, time);
        event.push(STEP << 3);
        event.extend(varint(step));
        event.extend(bytes(SUMMARY, &summary));
        self.record(&event)?;
        self.out.flush()
    }

    /// Length and its checksum, data and its checksum.
    fn record(&mut self, data: &[u8]) -> io::Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        self.out.write_all(&length)?;
        self.out.write_all(&masked_crc(&length).to_le_bytes())?;
        self.out.write_all(data)?;
        self.out.write_all(&masked_crc(data).to_le_bytes())
    }
}

// Field numbers of Event, Summary and Summary.Value.
const WALL_TIME: u8 = 1;
const STEP: u8 = 2;
const FILE_VERSION: u8 = 3;
const SUMMARY: u8 = 5;
const VALUE: u8 = 1;
const TAG: u8 = 1;
const SIMPLE_VALUE: u8 = 2;

fn fixed64(field: u8, value: f64) -> Vec<u8> {
    let mut out = vec![field << 3 | 1];
    out.extend(value.to_le_bytes());
    out
}

fn bytes(field: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    out.extend(varint(value.len() as u64));
    out.extend(value);
    out
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// CRC-32C (Castagnoli), rotated and offset as TFRecord has it, so that a checksum of checksums is not degenerate.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_castagnolis() {
        // RFC 3720, B.4, and the check value of the CRC catalogue.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn bytes_are_those_that_tensorboard_reads() {
        let mut out = Vec::new();
        let mut writer = EventWriter::new(&mut out, 1.5).unwrap();
        writer.scalars(2.5, 300, &[("train/loss", 0.25), ("lr", 1e-4)]).unwrap();
        assert_eq!(hex::encode(out), EXPECTED); // tensorboard 2.21 reads these bytes back as the same values
    }

    const EXPECTED: &str = "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c2c00000000000000f4aecc4509000000000000044010ac022a1e0a110a0a747261696e2f6c6f7373150000803e0a090a026c721517b7d1388f22c766";
}
