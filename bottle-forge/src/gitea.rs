//! Gitea and Forgejo: the `repository` group of their interface, which is much like GitHub's.

use serde_json::json;

use super::forge::{Forge, ForgeError, NewKey, RegisteredKey};
use super::http::{Api, Dialect, in_path};

const DIALECT: Dialect = Dialect { header: "Authorization", scheme: "token ", accept: "application/json" };

pub(super) struct Gitea(pub(super) Api);

impl Forge for Gitea {
    fn create(&self, repository: &str, key: &NewKey<'_>) -> Result<u64, ForgeError> {
        let body = json!({"title": key.title, "key": key.public_key, "read_only": key.read_only});
        self.0.post::<RegisteredKey>(DIALECT, &keys(repository), &body).map(|key| key.id)
    }

    fn list(&self, repository: &str) -> Result<Vec<RegisteredKey>, ForgeError> {
        self.0.pages(DIALECT, &format!("{}?limit=50&page=", keys(repository)))
    }

    fn delete(&self, repository: &str, id: u64) -> Result<(), ForgeError> {
        self.0.delete(DIALECT, &format!("{}/{id}", keys(repository)))
    }
}

fn keys(repository: &str) -> String {
    format!("/repos/{}/keys", in_path(repository, true))
}
