//! Developer tasks: schema, e2e, bench, ci.
