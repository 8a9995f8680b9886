use super::{Trouble, holds};
use crate::supervisor::{BootPhase, Rented, SupervisorError};

/// Whether that is what this trouble comes to.
pub(super) fn outcome(trouble: Trouble, result: &Result<Rented, SupervisorError>) -> Result<(), String> {
    let stuck = |expected| matches!(result, Err(SupervisorError::Stuck { phase, .. }) if *phase == expected);
    let rented_after = |tried: usize| result.as_ref().is_ok_and(|rented| rented.tried.len() == tried);
    let good = match trouble {
        // Adopted, waited for, asked for again: it is there, and it is the only one.
        Trouble::None
        | Trouble::CreateFailsButHappens
        | Trouble::CreateBreaksOff
        | Trouble::CreateNeverAnswers
        | Trouble::HiddenAfterCreate
        | Trouble::EndSaysNotFound
        | Trouble::TooManyLooks(_)
        | Trouble::ClockAhead
        | Trouble::ClockBehind
        // Each of these is judged by what it does to an allocation that is there.
        | Trouble::OwnerKilled
        | Trouble::TwoSegments
        | Trouble::ExitsUnacknowledged
        | Trouble::LogBreaksOff => rented_after(0),
        // Ended, and then the next one.
        Trouble::CreateErrorNamesIt | Trouble::FirstOfferRefused => rented_after(1),
        // Whether the backend or the supervisor repeats what was turned away at the door is theirs to say.
        Trouble::TooManyCreates(_) => rented_after(0) || rented_after(1),
        Trouble::EveryOfferTaken => matches!(result, Err(SupervisorError::NoOffer { .. })),
        Trouble::StuckInSchedule => stuck(BootPhase::Schedule),
        Trouble::StuckInPull => stuck(BootPhase::Pull),
        Trouble::StuckInStart => stuck(BootPhase::Start),
        Trouble::WithoutPorts => stuck(BootPhase::Reachable),
        Trouble::WithoutGpus => stuck(BootPhase::GpuReady),
        Trouble::UnknownState => stuck(BootPhase::Schedule),
        Trouble::ExitsEarly => matches!(result, Err(SupervisorError::EndedEarly { .. })),
        Trouble::PriceAboveCap => matches!(result, Err(SupervisorError::TooExpensive { .. })),
    };
    holds(good, || match result {
        Ok(rented) => format!("it was rented after {} others", rented.tried.len()),
        Err(error) => format!("it came to: {error}"),
    })
}
