//! Refusals with stable codes and what to do about each: every verifier names its checks through [`codes!`].

/// Declares a module's codes, their list, their advice, and how the module refuses with them.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $advice:literal;)*) => {
        $($(#[$doc])* pub const $name: glasshouse_core::refusal::Code = glasshouse_core::refusal::Code::new($text);)*

        /// Every code of this module.
        pub const ALL: &[glasshouse_core::refusal::Code] = &[$($name),*];

        /// What to do about it.
        pub fn advice(code: &glasshouse_core::refusal::Code) -> Option<&'static str> {
            match code.as_str() { $($text => Some($advice),)* _ => None }
        }

        /// A refusal with this module's advice.
        pub(super) fn refuse(
            code: glasshouse_core::refusal::Code,
            expected: impl std::fmt::Display,
            seen: impl std::fmt::Display,
        ) -> glasshouse_core::refusal::Refusal {
            let advice = advice(&code).map(str::to_owned);
            glasshouse_core::refusal::Refusal { advice, ..glasshouse_core::refusal::Refusal::new(code, expected, seen) }
        }
    };
}

pub(crate) use codes;
