//! gitlab.com and self-managed GitLab: "Deploy keys API". A project is named by its whole path as one segment.

use serde_json::json;

use super::forge::{Forge, ForgeError, NewKey, RegisteredKey};
use super::http::{Api, Dialect, in_path};

const DIALECT: Dialect = Dialect { header: "PRIVATE-TOKEN", scheme: "", accept: "application/json" };

pub(super) struct Gitlab(pub(super) Api);

impl Forge for Gitlab {
    fn create(&self, repository: &str, key: &NewKey<'_>) -> Result<u64, ForgeError> {
        let body = json!({"title": key.title, "key": key.public_key, "can_push": !key.read_only});
        self.0.post::<RegisteredKey>(DIALECT, &keys(repository), &body).map(|key| key.id)
    }

    fn list(&self, repository: &str) -> Result<Vec<RegisteredKey>, ForgeError> {
        self.0.pages(DIALECT, &format!("{}?per_page=100&page=", keys(repository)))
    }

    fn delete(&self, repository: &str, id: u64) -> Result<(), ForgeError> {
        self.0.delete(DIALECT, &format!("{}/{id}", keys(repository)))
    }
}

fn keys(repository: &str) -> String {
    format!("/projects/{}/deploy_keys", in_path(repository, false))
}
