//! glasshouse-train
