//! Environment variables that the engine's command line reads.

/// Prefixes of variables that Docker, Compose, the image builder, Podman or the dynamic linker read.
const PREFIXES: [&str; 7] = ["DOCKER_", "COMPOSE_", "BUILDKIT_", "BUILDX_", "CONTAINERS_", "CONTAINER_", "LD_"];

/// Variables that every program reads, the engine's among them.
const NAMES: [&str; 5] = ["PATH", "HOME", "XDG_RUNTIME_DIR", "SSH_AUTH_SOCK", "TERM"];

/// Proxy variables. A client hands them to builds and containers.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY"];

/// Returns true if a variable changes what the engine's command line does. Such a variable must not carry a value of the
/// bottle through the environment of that command.
///
/// ```
/// use bottle_values::environment::steers_the_engine;
/// assert!(steers_the_engine("DOCKER_HOST") && steers_the_engine("https_proxy"));
/// assert!(!steers_the_engine("GITHUB_TOKEN"));
/// ```
pub fn steers_the_engine(name: &str) -> bool {
    NAMES.contains(&name) || is_proxy(name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Returns true if a subprocess inherits the variable from the host.
///
/// An allow list, because a deny list misses a new variable with each release. Of the variables that
/// [`steers_the_engine`] names, those of Compose, the builder and the dynamic linker are not inherited: they would change
/// what a bottle is.
pub fn is_inherited(name: &str) -> bool {
    NAMES.contains(&name) || is_proxy(name) && !name.eq_ignore_ascii_case("FTP_PROXY") || name.starts_with("DOCKER_")
}

/// Each name is read in upper case and in lower case, but not in both at once.
fn is_proxy(name: &str) -> bool {
    let lower = || name.bytes().all(|byte| !byte.is_ascii_uppercase());
    PROXIES.contains(&name) || lower() && PROXIES.contains(&name.to_ascii_uppercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_inherited_steers_the_engine_and_not_the_other_way_round() {
        for name in ["PATH", "HOME", "TERM", "http_proxy", "NO_PROXY", "DOCKER_HOST", "DOCKER_CONTEXT"] {
            assert!(is_inherited(name) && steers_the_engine(name), "{name}");
        }
        for name in ["COMPOSE_FILE", "BUILDX_BUILDER", "CONTAINERS_CONF", "CONTAINER_HOST", "LD_PRELOAD", "ftp_proxy"] {
            assert!(!is_inherited(name) && steers_the_engine(name), "{name}");
        }
        for name in ["Http_Proxy", "GITHUB_TOKEN", "DOCKER", "MY_DOCKER_HOST", ""] {
            assert!(!is_inherited(name) && !steers_the_engine(name), "{name}");
        }
    }
}
