//! The manifest's JSON Schema.

use std::fs;
use std::path::Path;

use bottle_plan::Manifest;

/// Where the schema is committed.
const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../bottle-plan/schema/bottle.schema.json");

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Writes nothing, and fails when the committed schema is not what the types say.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let (path, schema) = (Path::new(PATH), Manifest::json_schema());
    let current = fs::read_to_string(path).unwrap_or_default() == schema;
    if arguments.check {
        let problem = "bottle-plan/schema/bottle.schema.json is not what the types say; run `cargo xtask schema`";
        return if current { Ok(()) } else { Err(problem.to_owned()) };
    }
    fs::create_dir_all(path.with_file_name(""))
        .and_then(|()| fs::write(path, schema))
        .map_err(|error| format!("failed to write `{PATH}`: {error}"))?;
    println!("bottle-plan/schema/bottle.schema.json {}", if current { "is as it was" } else { "is written" });
    Ok(())
}
