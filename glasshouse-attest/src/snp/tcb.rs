use std::fmt;

use serde::{Deserialize, Serialize};

/// A line of processors, each with a root of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Product {
    /// EPYC 7003.
    Milan,
    /// EPYC 9004 and 8004 (Genoa, Bergamo, Siena).
    Genoa,
    /// EPYC 9005.
    Turin,
}

impl Product {
    /// The name as certificates spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// The product of a processor by its combined family and model (AMD 57230, section on VCEK product names).
    pub(crate) const fn of_cpuid(family: u8, model: u8) -> Option<Self> {
        match (family, model) {
            (0x19, 0x00..=0x0f) => Some(Self::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Self::Genoa),
            (0x1a, 0x00..=0x1f) => Some(Self::Turin),
            _ => None,
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// TCB_VERSION as it stands in a report: which byte is which depends on the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcbBytes(pub [u8; 8]);

impl TcbBytes {
    /// The components (AMD 56860 section 2.2). `None` where a reserved byte is not zero.
    pub const fn of(self, product: Product) -> Option<Tcb> {
        match (product, self.0) {
            (Product::Milan | Product::Genoa, [bootloader, tee, 0, 0, 0, 0, snp, microcode]) => {
                Some(Tcb { fmc: 0, bootloader, tee, snp, microcode })
            }
            (Product::Turin, [fmc, bootloader, tee, snp, 0, 0, 0, microcode]) => {
                Some(Tcb { fmc, bootloader, tee, snp, microcode })
            }
            _ => None,
        }
    }
}

/// Security versions of a platform's firmware. In a policy's floor, what is left out is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tcb {
    /// Firmware measurement core; Turin only.
    pub fmc: u8,
    /// Boot loader of the security processor.
    pub bootloader: u8,
    /// Its operating system.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode.
    pub microcode: u8,
}

impl Tcb {
    /// Whether no component is below the floor's.
    pub const fn reaches(&self, floor: &Self) -> bool {
        self.fmc >= floor.fmc
            && self.bootloader >= floor.bootloader
            && self.tee >= floor.tee
            && self.snp >= floor.snp
            && self.microcode >= floor.microcode
    }
}

impl fmt::Display for Tcb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fmc, bootloader, tee, snp, microcode } = self;
        write!(f, "fmc {fmc}, bootloader {bootloader}, tee {tee}, snp {snp}, microcode {microcode}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_by_product() {
        let milan = TcbBytes([3, 0, 0, 0, 0, 0, 8, 0x73]);
        let tcb = Tcb { fmc: 0, bootloader: 3, tee: 0, snp: 8, microcode: 0x73 };
        assert_eq!(milan.of(Product::Milan), Some(tcb));
        assert_eq!(milan.of(Product::Turin), None, "byte 6 is reserved there");
        let turin = TcbBytes([1, 2, 3, 4, 0, 0, 0, 9]);
        assert_eq!(turin.of(Product::Turin), Some(Tcb { fmc: 1, bootloader: 2, tee: 3, snp: 4, microcode: 9 }));
        assert_eq!(turin.of(Product::Genoa), None);
    }

    #[test]
    fn a_floor_is_met_in_every_component() {
        let floor = Tcb { bootloader: 3, snp: 8, ..Tcb::default() };
        let tcb = Tcb { fmc: 0, bootloader: 3, tee: 0, snp: 8, microcode: 0x73 };
        assert!(tcb.reaches(&floor) && tcb.reaches(&tcb));
        assert!(!Tcb { snp: 7, bootloader: 9, ..tcb }.reaches(&floor));
    }

    #[test]
    fn products() {
        for (cpuid, product) in [
            ((0x19, 0x01), Some(Product::Milan)),
            ((0x19, 0x11), Some(Product::Genoa)),
            ((0x19, 0xa0), Some(Product::Genoa)),
            ((0x1a, 0x02), Some(Product::Turin)),
            ((0x17, 0x31), None),
            ((0x19, 0x50), None),
        ] {
            assert_eq!(Product::of_cpuid(cpuid.0, cpuid.1), product, "{cpuid:x?}");
        }
    }
}
