//! A kernel that answers in a temporary folder, through the real reader and writer of files; and GPUs.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use glasshouse_attest::tee::{ConfidentialState, ConfigFs, GpuInterface, RawEvidence, TsmEntry, TsmInterface};
use glasshouse_attest_gen::Platform;
use glasshouse_attest_gen::nvidia::Machine;
use glasshouse_core::evidence::CpuEvidence;
use glasshouse_core::fixed::{Digest64, Fixed};

/// Attributes that were set, in order.
pub(crate) type Written = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// What a kernel does wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Another provider's driver is loaded.
    OtherProvider,
    /// Somebody else writes to the request meanwhile.
    Interference,
    /// The report data of an earlier request.
    StaleReport,
    /// No certificate table beside a report.
    NoTable,
    /// An attribute lacks.
    NoGeneration,
    /// The security module does not answer.
    Busy,
}

/// The kernel.
pub(crate) struct FakeKernel {
    pub(crate) configfs: ConfigFs,
    pub(crate) platform: Platform,
    pub(crate) fault: Fault,
    /// Every attribute that was set, in order.
    pub(crate) written: Written,
}

impl TsmInterface for FakeKernel {
    fn is_there(&self) -> bool {
        self.configfs.is_there()
    }

    fn open(&self) -> io::Result<Box<dyn TsmEntry>> {
        let entry = self.configfs.entry()?;
        let path = entry.path().to_owned();
        let provider = match self.platform.quote(&Digest64::from([0; 64])) {
            _ if self.fault == Fault::OtherProvider => "arm_cca_guest",
            CpuEvidence::Tdx { .. } => "tdx_guest",
            _ => "sev_guest",
        };
        fs::write(path.join("provider"), format!("{provider}\n"))?;
        if self.fault != Fault::NoGeneration {
            fs::write(path.join("generation"), "0\n")?;
        }
        for attribute in ["inblob", "privlevel", "outblob"] {
            fs::write(path.join(attribute), "")?;
        }
        let (platform, fault, written) = (self.platform.clone(), self.fault, Arc::clone(&self.written));
        Ok(Box::new(FakeEntry { entry: Some(entry), path, platform, fault, written }))
    }

    fn place(&self) -> String {
        self.configfs.place()
    }
}

struct FakeEntry {
    /// Taken first when dropped; its folder is not empty here and so stays.
    entry: Option<glasshouse_attest::tee::ConfigFsEntry>,
    path: PathBuf,
    platform: Platform,
    fault: Fault,
    written: Written,
}

impl TsmEntry for FakeEntry {
    fn read(&self, attribute: &str) -> io::Result<Option<Vec<u8>>> {
        if attribute == "outblob" && self.fault == Fault::Busy {
            return Err(io::Error::from(io::ErrorKind::ResourceBusy));
        }
        if attribute == "outblob" && self.fault == Fault::Interference {
            self.bump()?;
        }
        self.entry.as_ref().unwrap().read(attribute)
    }

    fn write(&mut self, attribute: &str, bytes: &[u8]) -> io::Result<()> {
        self.entry.as_mut().unwrap().write(attribute, bytes)?;
        self.written.lock().unwrap().push((attribute.to_owned(), bytes.to_vec()));
        self.bump()?;
        if attribute == "inblob" {
            let asked = Digest64::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
            let data = if self.fault == Fault::StaleReport { Fixed([9; 64]) } else { asked };
            match self.platform.quote(&data) {
                CpuEvidence::Tdx { quote } => fs::write(self.path.join("outblob"), quote.0)?,
                CpuEvidence::SevSnp { report, certificates } => {
                    fs::write(self.path.join("outblob"), report.0)?;
                    if let Some(table) = certificates.filter(|_| self.fault != Fault::NoTable) {
                        fs::write(self.path.join("auxblob"), table.0)?;
                    }
                }
                _ => unreachable!("platforms are TDX or SEV-SNP"),
            }
        }
        Ok(())
    }
}

impl FakeEntry {
    fn bump(&self) -> io::Result<()> {
        let path = self.path.join("generation");
        let now: u64 = fs::read_to_string(&path)?.trim().parse().map_err(io::Error::other)?;
        fs::write(path, format!("{}\n", now + 1))
    }
}

impl Drop for FakeEntry {
    fn drop(&mut self) {
        // What the kernel does with its own files when the request's folder goes.
        for file in fs::read_dir(&self.path).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        self.entry.take();
        assert!(!self.path.exists(), "the request is taken away");
    }
}

/// The driver.
pub(crate) struct FakeGpus {
    pub(crate) machines: Vec<Machine>,
    /// Of each.
    pub(crate) states: Vec<Option<ConfidentialState>>,
    /// Answers this nonce whatever was asked.
    pub(crate) nonce: Option<[u8; 32]>,
    pub(crate) broken: bool,
    /// Gives no chain.
    pub(crate) bare: bool,
}

impl FakeGpus {
    pub(crate) fn of(platform: &Platform) -> Self {
        let states = vec![Some(ConfidentialState { enabled: true, dev_tools: false }); platform.devices.len()];
        Self { machines: platform.devices.clone(), states, nonce: None, broken: false, bare: false }
    }
}

impl GpuInterface for FakeGpus {
    fn count(&self) -> Result<u32, String> {
        Ok(self.machines.len() as u32)
    }

    fn state(&self, index: u32) -> Result<Option<ConfidentialState>, String> {
        Ok(self.states[index as usize])
    }

    fn evidence(&self, index: u32, nonce: &[u8; 32]) -> Result<RawEvidence, String> {
        if self.broken {
            return Err("the GPU is lost".to_owned());
        }
        let machine = &self.machines[index as usize];
        let report = machine.report(&Fixed(self.nonce.unwrap_or(*nonce)));
        // Drivers pad the chain's buffer.
        Ok(RawEvidence { report, chain: if self.bare { vec![0; 7] } else { [machine.pem(), vec![0; 7]].concat() } })
    }
}
