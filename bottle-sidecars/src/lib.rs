//! The sidecars of a bottle: image, configuration and service of each.
