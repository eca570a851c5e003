//! Bottles from a Tokio runtime. The work is done by the crate `bottle`, on the threads that the runtime has for blocking work.
//!
//! Dropping a future stops what it started: the future of a launch takes the bottle down, that of a command stops the
//! command. A dropped [`Bottle`] or [`Child`] is removed or stopped in the background; the end of the runtime waits for it.
//!
//! ```no_run
//! use bottle::prelude::{AgentSpec, BottleSpec, Manifest};
//! use bottle_tokio::Bottles;
//! use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
//!
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! let bottles = bottle::Bottles::local()?;
//! let coder = AgentSpec::custom("dev", ["sh"])?;
//! let manifest = Manifest::default().with_bottle("dev", BottleSpec::default())?.with_agent("coder", coder)?;
//! let plan = manifest.plan(&bottles)?;
//!
//! let bottle = Bottles::new(bottles).launch(plan).await?;
//! let mut child = bottle.spawn(["tr", "a-z", "A-Z"], None).await?;
//! let mut stdin = child.stdin.take().expect("it was not taken");
//! stdin.write_all(b"hello").await?;
//! drop(stdin);
//! let mut text = String::new();
//! child.stdout.take().expect("it was not taken").read_to_string(&mut text).await?;
//! assert_eq!((text.as_str(), child.wait().await?.is_success()), ("HELLO", true));
//! bottle.close().await?;
//! # Ok(())
//! # }
//! ```

mod blocking;
mod bottle;
mod bottles;
mod child;
mod stream;

pub use self::bottle::Bottle;
pub use bottles::Bottles;
pub use child::Child;
pub use stream::{ChildStdin, ChildStdout};
