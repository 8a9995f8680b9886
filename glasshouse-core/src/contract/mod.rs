//! Public contract tests: call one from a test of your own implementation. Each panics with the clause that failed.

// filled in by the contract suites
