use crate::wire::WireError;

/// Why an agent did not do what it was asked. Every variant names the step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The endpoint is no address.
    #[error("{endpoint} is no address of an agent: {why}")]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// What is wrong.
        why: String,
    },
    /// Nobody answered, however often it was asked.
    #[error("{step}: the agent at {at} does not answer: {why}; look at the allocation's log")]
    Unreachable {
        /// The step.
        step: &'static str,
        /// Where.
        at: String,
        /// What happened last.
        why: String,
    },
    /// Something answered that is not this allocation's agent, or was changed on the way.
    #[error("{step}: what answered is not this allocation's agent: {why}; end the allocation")]
    Nonsense {
        /// The step.
        step: &'static str,
        /// What was wrong with the answer.
        why: String,
    },
    /// The agent, or the segment behind it, said no.
    #[error("{step}: {error}")]
    Refused {
        /// The step.
        step: &'static str,
        /// What it said.
        error: WireError,
    },
    /// A file of the owner's could not be read.
    #[error("{step}: cannot read {what}: {why}")]
    File {
        /// The step.
        step: &'static str,
        /// What was read.
        what: String,
        /// What happened.
        why: String,
    },
}

impl ClientError {
    /// What the agent said, when it said no.
    pub const fn refused(&self) -> Option<&WireError> {
        match self {
            Self::Refused { error, .. } => Some(error),
            _ => None,
        }
    }

    /// Whether the same call may do better a little later.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { error, .. } => error.code.is_transient(),
            _ => false,
        }
    }
}
