//! Every snapshot against the description of the API server, without a cluster.

#![expect(clippy::unwrap_used, reason = "a failure is what a test is for")]

use std::fs;
use std::path::Path;

use bottle_testing::kubernetes::ApiSchema;
use serde_json::Value;

/// Fields whose keys are names that somebody chose.
const FREE: [&str; 7] = ["labels", "annotations", "matchLabels", "selector", "nodeSelector", "requests", "limits"];

/// Returns the objects of each snapshot.
fn snapshots() -> Vec<(String, Vec<Value>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots");
    let read = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        // Its own header is a YAML document.
        let (_, yaml) = text.strip_prefix("---\n").unwrap().split_once("---\n").unwrap();
        yaml.split("---\n").map(|document| serde_yaml::from_str(document).unwrap()).collect()
    };
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), read(&path))).collect()
}

#[test]
fn every_snapshot_is_what_the_api_describes() {
    let api = ApiSchema::default();
    let snapshots = snapshots();
    assert!(snapshots.len() >= 10, "{snapshots:?}");
    for (name, objects) in snapshots {
        assert!(objects.len() > 5, "{name}");
        for object in objects {
            assert_eq!(api.problems(&object), [""; 0], "{name}: {}", object["metadata"]["name"]);
        }
    }
}

/// Calls `test` with a copy of an object for each of its fields, in which this field is misspelt.
fn misspelt(whole: &Value, at: &str, test: &mut dyn FnMut(&str, Value)) {
    match whole.pointer(at).unwrap() {
        Value::Object(fields) => {
            for key in fields.keys() {
                let mut wrong = whole.clone();
                let fields = wrong.pointer_mut(at).unwrap().as_object_mut().unwrap();
                let value = fields.remove(key).unwrap();
                fields.insert(format!("{key}x"), value);
                test(&format!("{at}/{key}"), wrong);
                if !FREE.contains(&key.as_str()) {
                    misspelt(whole, &format!("{at}/{key}"), test);
                }
            }
        }
        Value::Array(all) => (0..all.len()).for_each(|number| misspelt(whole, &format!("{at}/{number}"), test)),
        _ => {}
    }
}

#[test]
fn a_misspelt_field_is_found_wherever_it_is() {
    let api = ApiSchema::default();
    let (_, objects) = snapshots().into_iter().find(|(name, _)| name.contains("as_objects")).unwrap();
    let mut tried = 0;
    for object in objects {
        misspelt(&object, "", &mut |at, wrong| {
            tried += 1;
            assert_ne!(api.problems(&wrong), [""; 0], "{} {at}", object["metadata"]["name"]);
        });
    }
    assert!(tried > 1000, "{tried}");
}

#[test]
fn a_value_of_another_type_is_found() {
    let api = ApiSchema::default();
    let (_, objects) = snapshots().into_iter().find(|(name, _)| name.contains("alone__plain")).unwrap();
    let mut pod = objects.into_iter().find(|object| object["kind"] == "Pod").unwrap();
    pod["spec"]["terminationGracePeriodSeconds"] = "2".into();
    assert_eq!(api.problems(&pod), ["/spec/terminationGracePeriodSeconds: \"2\" is not of type \"integer\""]);
}
