//! Bottles from a Tokio runtime.

use std::time::{Duration, Instant};

use bottle_tokio::{Bottle, Bottles};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::{Builder, Runtime};

use super::{Place, SMALL, options, plan};
use bottle_testing::lab::{engine, figure};

const SLUGS: [&str; 8] = ["rt1", "rt2", "rt3", "rt4", "rt5", "rt6", "rt7", "rt8"];

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Sends a megabyte through a command of the bottle and back.
async fn stream(bottle: &Bottle) {
    let bytes: Vec<u8> = (0..1 << 18).flat_map(|at: u32| at.wrapping_mul(0x9E37_79B9).to_le_bytes()).collect();
    let mut child = bottle.spawn(["cat"], None).await.unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let sent = bytes.clone();
    let writing = tokio::spawn(async move {
        stdin.write_all(&sent).await.unwrap();
        stdin.shutdown().await.unwrap();
    });
    let mut back = Vec::new();
    stdout.read_to_end(&mut back).await.unwrap();
    writing.await.unwrap();
    assert!(back == bytes, "{} bytes came back, or others", back.len());
    assert!(child.wait().await.unwrap().is_success());
}

/// Returns the number of processes in the bottle with this text in their command line.
async fn running(bottle: &Bottle, text: &str) -> String {
    let script = format!("grep -lsa -- '[{}]{}' /proc/[0-9]*/cmdline | wc -l", &text[..1], &text[1..]);
    bottle.exec(["sh", "-c", &script]).await.unwrap().stdout_text()
}

#[test]
#[ignore = "needs a container engine"]
fn eight_bottles_stream_at_once_from_one_runtime() {
    let place = Place::new();
    runtime().block_on(async {
        let bottles = Bottles::new(options(engine(), &place.state()));
        let started = Instant::now();
        let launches: Vec<_> = SLUGS
            .map(|slug| {
                let (bottles, plan) = (bottles.clone(), plan(SMALL, slug));
                tokio::spawn(async move { bottles.launch(plan).await.unwrap() })
            })
            .into();
        let mut up = Vec::new();
        for launch in launches {
            up.push(launch.await.unwrap());
        }
        figure(format_args!("8 bottles are launched after {:?}", started.elapsed()));
        let started = Instant::now();
        let streams: Vec<_> = up
            .into_iter()
            .map(|bottle| {
                tokio::spawn(async move {
                    stream(&bottle).await;
                    bottle
                })
            })
            .collect();
        for stream in streams {
            stream.await.unwrap().close().await.unwrap();
        }
        figure(format_args!("8 bottles streamed 1 MiB both ways and are gone after {:?}", started.elapsed()));
    });
    for slug in SLUGS {
        place.nothing_is_left(slug);
    }
}

#[test]
#[ignore = "needs a container engine"]
fn a_dropped_future_leaves_nothing_behind() {
    let place = Place::new();
    for milliseconds in [50, 700, 1500] {
        let runtime = runtime();
        let bottles = Bottles::new(options(engine(), &place.state()));
        let is_over = runtime.block_on(async {
            let time = Duration::from_millis(milliseconds);
            tokio::time::timeout(time, bottles.launch(plan(SMALL, "dropped"))).await.is_ok()
        });
        // It waits for the teardown. A launch that was faster is dropped as a bottle.
        drop(runtime);
        figure(format_args!("after {milliseconds} ms the launch was over: {is_over}"));
        place.nothing_is_left("dropped");
    }
    let runtime = runtime();
    runtime.block_on(async {
        let bottle = Bottles::new(options(engine(), &place.state())).launch(plan(SMALL, "dropped")).await.unwrap();
        let long = tokio::time::timeout(Duration::from_millis(1500), bottle.exec(["sleep", "4713"])).await;
        assert!(long.is_err(), "{long:?}");
        let child = bottle.spawn(["sleep", "4713"], None).await.unwrap();
        drop(child);
        let until = Instant::now() + Duration::from_secs(10);
        while running(&bottle, "sleep.4713").await.trim() != "0" {
            assert!(Instant::now() < until, "a command still runs");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let mut child = bottle.spawn(["sleep", "4714"], None).await.unwrap();
        child.kill().await.unwrap();
        assert!(!child.wait().await.unwrap().is_success());
    });
    drop(runtime);
    place.nothing_is_left("dropped");
}
