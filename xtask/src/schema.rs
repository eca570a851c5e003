//! Files that are generated from the types: the manifest's JSON Schema, and the grammars that the sidecars load.

use std::fs;

use bottle_plan::Manifest;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Write nothing, and fail if a committed file is out of date.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let files = [
        ("bottle-plan/schema/bottle.schema.json", Manifest::json_schema()),
        ("bottle-sidecars/images/shared/sidecar/grammar.json", bottle_values::export::json()),
        ("bottle-events/schema/event.schema.json", bottle_events::json_schema()),
        ("bottle-sidecars/images/shared/audit-line.schema.json", bottle_sidecars::audit::json_schema()),
    ];
    for (name, text) in files {
        let path = crate::process::root().join(name);
        let is_current = fs::read_to_string(&path).unwrap_or_default() == text;
        if arguments.check && !is_current {
            return Err(format!("`{name}` is out of date; run `cargo xtask schema`"));
        }
        if !arguments.check {
            fs::create_dir_all(path.with_file_name(""))
                .and_then(|()| fs::write(&path, text))
                .map_err(|error| format!("failed to write `{name}`: {error}"))?;
            println!("{name} {}", if is_current { "is unchanged" } else { "is written" });
        }
    }
    Ok(())
}
