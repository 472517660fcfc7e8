//! The federation's kinds: schemas, defaults, validation, placement, overrides and planning, all pure.
