use super::fake::{Fake, Flaw};
use super::*;
use glasshouse_core::secret::Ledger;

static LEDGER: Ledger = Ledger::new();

/// Little more than the margin.
fn small() -> Fake {
    Fake::new(MARGIN + (4 << 20))
}

fn over(fake: Fake) -> DeviceZeroizer<Fake> {
    let mut fake = Some(fake);
    let open = move || Ok(fake.take().unwrap_or_else(small));
    DeviceZeroizer::over(HostZeroizer::with_ledger(&LEDGER), open)
}

#[test]
fn it_keeps_the_contract() {
    glasshouse_core::contract::zeroizer(|| Box::new(over(small())));
}

#[test]
fn a_receipt_speaks_for_the_device_too() {
    let receipt = over(small()).zeroize().unwrap();
    let line = receipt.regions.iter().find(|region| region.label == REGION).unwrap();
    assert!(line.bytes > 2 << 20 && line.method.contains("zeros") && line.verification.contains("read back"));
    assert!(!receipt.not_covered.iter().any(|line| line == DEVICE_MEMORY_NOT_COVERED));
    for word in ["margin", "driver", "cuBLAS", "graph"] {
        assert!(receipt.not_covered.iter().any(|line| line.contains(word)), "{word}: {:?}", receipt.not_covered);
    }
}

#[test]
fn a_device_that_fails_does_not_keep_the_host_from_being_wiped() {
    let mut zeroizer = DeviceZeroizer::<Fake>::over(HostZeroizer::with_ledger(&LEDGER), || Err("gone".to_owned()));
    let held = std::sync::Arc::new(std::sync::Mutex::new(vec![7_u8; 9]));
    struct Watched(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
    impl glasshouse_core::traits::WipeTarget for Watched {
        fn bytes(&self) -> u64 {
            9
        }
        fn wipe(&mut self) -> Result<(), ZeroizeError> {
            self.0.lock().unwrap().fill(0);
            Ok(())
        }
        fn is_wiped(&self) -> Result<bool, ZeroizeError> {
            Ok(self.0.lock().unwrap().iter().all(|byte| *byte == 0))
        }
    }
    zeroizer.track(SecretRegion { label: "weights".into(), target: Box::new(Watched(held.clone())) });
    let error = zeroizer.zeroize().unwrap_err();
    assert!(error.to_string().contains("device memory could not be wiped: gone"), "{error}");
    assert_eq!(*held.lock().unwrap(), [0; 9]);
    let error = over(small().with(Flaw::OverwritesNothing)).zeroize().unwrap_err();
    assert!(error.to_string().contains("still holds data"), "{error}");
    let error = over(small().with(Flaw::Panics)).zeroize().unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
}

#[test]
fn a_device_that_does_not_answer_holds_nobody_up() {
    for flaw in [Flaw::HangsInTrim, Flaw::HangsInReturn] {
        let limit = Duration::from_millis(300);
        let mut zeroizer = over(small().with(flaw)).within(limit);
        let began = Instant::now();
        for _ in 0..2 {
            // The second time, too: a device that hung is not asked again.
            let error = zeroizer.zeroize().unwrap_err();
            assert!(error.to_string().contains("did not answer within 300ms"), "{flaw:?}: {error}");
        }
        drop(zeroizer);
        assert!(began.elapsed() >= limit && began.elapsed() < limit * 20, "{flaw:?}: {:?}", began.elapsed());
    }
}

/// A device that gives nothing but errors.
fn lost() -> DeviceZeroizer<Fake> {
    let open = || Err("CUDA_ERROR_ILLEGAL_ADDRESS".to_owned());
    DeviceZeroizer::over(HostZeroizer::with_ledger(&LEDGER), open).within(Duration::from_secs(20))
}

fn shell(script: impl AsRef<str>) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(script.as_ref());
    command
}

const UUID: &str = "GPU-00112233-4455-6677-8899-aabbccddeeff";

fn uuid() -> Result<String, String> {
    Ok(UUID.to_owned())
}

/// What a second process says that has wiped a fake device.
fn line(device: Fake, held: impl FnMut() -> Result<u64, String> + Send + 'static) -> (i32, String) {
    let mut said = Vec::new();
    let code = second::wipe_for_another(uuid, held, || Ok(device), LONGEST, &mut said);
    (code, String::from_utf8(said).unwrap())
}

fn nothing_held() -> Result<u64, String> {
    Ok(0)
}

fn printing(said: &str) -> Command {
    let mut command = shell("printf %s \"$0\"");
    command.arg(said);
    command
}

#[test]
fn a_second_process_wipes_what_this_one_has_lost() {
    let (code, said) = line(Fake::new(100 << 20).used(0, 10 << 20).filled(0xa5), nothing_held);
    assert_eq!(code, 0);
    let mut zeroizer = lost().last_resort(uuid(), |_| Ok(true), move || printing(&said));
    let receipt = zeroizer.zeroize().unwrap();
    let region = receipt.regions.iter().find(|region| region.label == REGION).unwrap();
    assert_eq!(region.bytes, 58 << 20);
    for words in ["CUDA_ERROR_ILLEGAL_ADDRESS", "by a second process", UUID, "60817408 bytes of 104857600"] {
        assert!(region.method.contains(words), "{}", region.method);
    }
    assert!(region.verification.contains("second process"));
    assert!(receipt.not_covered.iter().any(|line| line.starts_with("10485760 bytes") && line.contains("context")));
    assert!(!receipt.not_covered.iter().any(|line| line == DEVICE_MEMORY_NOT_COVERED));
    // Nothing is claimed twice.
    let error = zeroizer.zeroize().unwrap_err().to_string();
    assert!(error.contains("has let go of it"), "{error}");
}

#[test]
fn it_keeps_the_contract_with_a_second_process() {
    let (_, said) = line(small(), nothing_held);
    glasshouse_core::contract::zeroizer(move || {
        let said = said.clone();
        Box::new(lost().last_resort(uuid(), |_| Ok(true), move || printing(&said)))
    });
}

#[test]
fn a_second_process_has_the_device_that_was_lost() {
    let (_, said) = line(small(), nothing_held);
    // It says the device that CUDA shows it: this process's, whatever was visible before.
    let shown = said.trim_end().replace(UUID, "'\"$CUDA_VISIBLE_DEVICES\"'");
    let named = move || {
        let mut command = shell(format!("echo '{shown}'"));
        command.env("CUDA_VISIBLE_DEVICES", "1");
        command
    };
    let receipt = lost().last_resort(uuid(), |_| Ok(true), named).zeroize().unwrap();
    assert!(receipt.regions.iter().any(|region| region.method.contains(UUID)));
    let other = said.replace(UUID, "GPU-00112233-4455-6677-8899-aabbccddeefe");
    let error = lost().last_resort(uuid(), |_| Ok(true), move || printing(&other)).zeroize().unwrap_err();
    assert!(error.to_string().contains("had another device"), "{error}");
    let never = || -> Command { panic!("a second process") };
    let unknown = Err("told to fail".to_owned());
    let error = lost().last_resort(unknown, |_| Ok(true), never).zeroize().unwrap_err().to_string();
    assert!(error.contains("which device to wipe: told to fail") && error.contains("ILLEGAL_ADDRESS"), "{error}");
    // Nor does a process say anything that does not know its device.
    let mut said = Vec::new();
    let unknown = || Err("told to fail".to_owned());
    assert_eq!(second::wipe_for_another(unknown, nothing_held, || Ok(small()), LONGEST, &mut said), 1);
    assert!(String::from_utf8(said).unwrap().contains("told to fail"));
}

#[test]
fn what_settles_is_fine_and_what_stays_is_said() {
    const HELD: u64 = 9 << 20;
    let began = Instant::now();
    let (_, said) = line(small(), || Ok(HELD));
    assert!(began.elapsed() >= Duration::from_secs(1), "it is waited for");
    assert!(said.contains("\"held\":9437184"), "{said}");
    let mut zeroizer = lost().last_resort(uuid(), |_| Ok(true), move || printing(&said));
    let error = zeroizer.zeroize().unwrap_err().to_string();
    assert!(error.contains("9437184 bytes of secret memory are still held"), "{error}");
    let mut held = vec![0, HELD];
    let (_, said) = line(small(), move || Ok(held.pop().unwrap_or(HELD)));
    assert!(said.contains("\"held\":0"), "{said}");
    assert!(lost().last_resort(uuid(), |_| Ok(true), move || printing(&said)).zeroize().is_ok());
}

#[test]
fn no_thread_to_be_had_is_not_a_device_that_does_not_answer() {
    let endless = thread::Builder::new().stack_size(usize::MAX / 4);
    let undone = apart(endless, || (), LONGEST);
    assert!(matches!(undone, Err(Undone::NoThread(_))));
    let slow = apart(thread::Builder::new(), || thread::sleep(LONGEST), Duration::from_millis(1));
    assert!(matches!(slow, Err(Undone::TooLong)));
    assert_eq!(apart(thread::Builder::new(), || 7, LONGEST).ok(), Some(7));
}

#[test]
fn and_what_does_not_answer() {
    let (_, said) = line(small(), nothing_held);
    let said = move || printing(&said);
    let silent = || over(small().with(Flaw::HangsInTrim)).within(Duration::from_millis(500));
    let mut zeroizer = silent().last_resort(uuid(), |answers| Ok(!answers), said);
    let receipt = zeroizer.zeroize().unwrap();
    let region = receipt.regions.iter().find(|region| region.label == REGION).unwrap();
    assert!(region.method.contains("did not answer within 500ms"), "{}", region.method);
    let mut zeroizer = silent().last_resort(uuid(), |_| Ok(false), || -> Command { panic!("a second process") });
    for _ in 0..2 {
        assert!(zeroizer.zeroize().unwrap_err().to_string().contains("did not answer"));
    }
}

#[test]
fn a_device_that_is_not_lost_is_not_let_go_of() {
    let never = || -> Command { panic!("a second process") };
    let open = || Ok(small().with(Flaw::OverwriteFails));
    let zeroizer = DeviceZeroizer::over(HostZeroizer::with_ledger(&LEDGER), open);
    let mut zeroizer = zeroizer.last_resort(uuid(), |_| Ok(false), never);
    for _ in 0..2 {
        assert!(zeroizer.zeroize().unwrap_err().to_string().contains("told to fail"));
    }
    // Nor one that is wiped.
    assert!(over(small()).last_resort(uuid(), |_| panic!("asked"), never).zeroize().is_ok());
}

#[test]
fn a_device_that_cannot_be_let_go_of_is_no_receipt() {
    let never = || -> Command { panic!("a second process") };
    let mut zeroizer = lost().last_resort(uuid(), |_| Err("told to fail".to_owned()), never);
    let error = zeroizer.zeroize().unwrap_err().to_string();
    assert!(error.contains("ILLEGAL_ADDRESS") && error.contains("told to fail"), "{error}");
    let error = lost().last_resort(uuid(), |_| panic!("told to panic"), never).zeroize().unwrap_err().to_string();
    assert!(error.contains("letting go of it panicked"), "{error}");
    let hangs = |_| loop {
        std::thread::park();
    };
    let mut zeroizer = lost().within(Duration::from_millis(300)).last_resort(uuid(), hangs, never);
    for _ in 0..2 {
        let error = zeroizer.zeroize().unwrap_err().to_string();
        assert!(error.contains("letting go of it did not end"), "{error}");
    }
}

#[test]
fn a_second_process_that_fails_lies_or_hangs_is_no_receipt() {
    let (_, said) = line(small(), nothing_held);
    let (code, dirty) = line(small().with(Flaw::OverwritesNothing), nothing_held);
    assert_eq!(code, 1);
    let (panicked, _) = line(small().with(Flaw::Panics), nothing_held);
    assert_eq!(panicked, 1);
    let said = said.trim_end();
    for (script, says) in [
        ("exit 0".to_owned(), "what it said is no report"),
        ("kill -9 $$".to_owned(), "ended with signal: 9"),
        (format!("echo '{said}'; exit 1"), "ended with exit status: 1"),
        (format!("echo '{said}'; echo '{said}'"), "no report"),
        (format!("echo '{said} '; echo more"), "no report"),
        (format!("echo '{}'", said.replace("\"total\":37748736", "\"total\":1")), "says of 1 bytes"),
        (
            format!("echo '{}'", said.replace("\"held\":0", "\"held\":8589934592")),
            "8589934592 bytes of secret memory are still held",
        ),
        (format!("echo '{}'; exit 1", dirty.trim_end()), "still holds data after wiping"),
        ("exec yes x".to_owned(), "ended with signal: 13"),
    ] {
        let mut zeroizer = lost().last_resort(uuid(), |_| Ok(true), move || shell(&script));
        let error = zeroizer.zeroize().unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("ILLEGAL_ADDRESS"), "{says}: {error}");
    }
    let mut zeroizer = lost().last_resort(uuid(), |_| Ok(true), || Command::new("/nowhere/at/all"));
    assert!(zeroizer.zeroize().unwrap_err().to_string().contains("cannot be started"));
}

#[test]
fn a_second_process_that_does_not_end_holds_nobody_up() {
    let (_, said) = line(small(), nothing_held);
    let said = said.trim_end().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let noted = folder.path().join("pid");
    let note = format!("echo $$ > {}", noted.display());
    for script in [format!("{note}; exec sleep 1000"), format!("{note}; echo '{said}'; exec >&-; exec sleep 1000")] {
        let limit = Duration::from_millis(300);
        let mut zeroizer = lost().within(limit).last_resort(uuid(), |_| Ok(true), move || shell(&script));
        let began = Instant::now();
        let error = zeroizer.zeroize().unwrap_err().to_string();
        assert!(error.contains("did not end within 300ms"), "{error}");
        assert!(began.elapsed() >= limit && began.elapsed() < limit * 20, "{:?}", began.elapsed());
        // And it is ended, and reaped.
        let process = format!("/proc/{}", std::fs::read_to_string(&noted).unwrap().trim());
        while std::path::Path::new(&process).exists() {
            assert!(began.elapsed() < Duration::from_secs(20), "{process} is still there");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    // Its own limit, for the device that it finds.
    let mut said = Vec::new();
    let (hangs, limit) = (|| Ok(small().with(Flaw::HangsInTrim)), Duration::from_millis(300));
    assert_eq!(second::wipe_for_another(uuid, nothing_held, hangs, limit, &mut said), 1);
    assert!(String::from_utf8(said).unwrap().contains("did not answer within 300ms"));
}
