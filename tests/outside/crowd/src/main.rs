//! Eight bottles on one runtime, each with a command that streams: `crowd MANIFEST`.

use std::error::Error;
use std::time::Instant;

use bottle::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

type Done<T> = Result<T, Box<dyn Error + Send + Sync>>;

const MIB: usize = 1 << 20;

#[tokio::main]
async fn main() -> Done<()> {
    let path = std::env::args().nth(1).ok_or("usage: crowd MANIFEST")?;
    let local = Bottles::local()?;
    let manifest = Manifest::read(path)?;
    let started = Instant::now();
    let mut launches = JoinSet::new();
    for _ in 0..8 {
        let (bottles, plan) = (bottle_tokio::Bottles::new(local.clone()), manifest.plan(&local)?);
        launches.spawn(async move { bottles.launch(plan).await });
    }
    let bottles = launches.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
    eprintln!("{} bottles after {:.1} s", bottles.len(), started.elapsed().as_secs_f64());
    let started = Instant::now();
    let mut streams: JoinSet<Done<String>> = JoinSet::new();
    for bottle in bottles {
        streams.spawn(async move {
            let sum = stream(&bottle).await?;
            bottle.close().await?;
            Ok(format!("{} {sum}", bottle.handle().slug()))
        });
    }
    for said in streams.join_all().await {
        println!("{}", said?);
    }
    eprintln!("streamed and removed after {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Sends 16 MiB through a command while its output is read. Returns the number of bytes that came back as they should.
async fn stream(bottle: &bottle_tokio::Bottle) -> Done<usize> {
    let mut child = bottle.spawn(["tr", "a-z", "A-Z"], None).await?;
    let (mut input, mut output) = child.stdin.take().zip(child.stdout.take()).ok_or("no streams")?;
    let sender = tokio::spawn(async move {
        for _ in 0..16 {
            input.write_all(&vec![b'x'; MIB]).await?;
        }
        input.shutdown().await
    });
    let mut back = Vec::new();
    output.read_to_end(&mut back).await?;
    sender.await??;
    child.wait().await?;
    Ok(back.iter().filter(|byte| **byte == b'X').count())
}
