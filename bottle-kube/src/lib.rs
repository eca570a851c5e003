//! Bottles on Kubernetes. [`KubeBottles`] launches, lists, attaches and recovers them through `kubectl`. The objects are those of
//! [`bottle_kube_render`], whose page says what becomes of each part of a Compose project.

mod attacks;
mod bottle;
mod client;
mod directory;
mod error;
mod images;
mod inputs;
mod keys;
mod launch;
mod lease;
mod material;
mod pods;
mod supervise;
mod work;

pub use attacks::Attacks;
pub use bottle::{Journal, KubeBottle, KubeExec};
pub use bottle_kube_render::{Content, Delivery, File, KubeOptions, Manifests, RenderError, object, render, to_yaml};
pub use client::{Kubectl, Target};
pub use directory::DirectoryFile;
pub use error::KubeError;
pub use images::{BuiltImages, ImageSource, KubeImages, NamedImages, PushedImages, ReadyImages};
pub use inputs::KubeInputs;
pub use launch::{KubeBottles, KubeSummary};
pub use lease::Ownership;
pub use supervise::KubeSupervisor;
