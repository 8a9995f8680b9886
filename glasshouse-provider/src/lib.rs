//! glasshouse-provider
