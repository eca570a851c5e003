//! Names of variables: what a plan derives from a manifest's names is always a name.

use bottle_plan::{BottlePlan, Manifest};
use serde_json::json;

const MANIFEST: &str = "
bottles:
  dev:
    egress:
      routes: [{host: api.example.com, inject: {token: TOKEN}}]
    git:
      upstreams: [{name: app, url: https://git.example.com/app, token: TOKEN}]
agents: {demo: {bottle: dev, command: [id]}}
";

#[test]
fn a_derived_variable_may_look_like_a_token() {
    let long = format!("a1{}", "B".repeat(98));
    for token in ["openai_key_v2", "gitlab_t1", "My_Company_OpenAI_Key_v2", "x", "_", long.replace('B', "b").as_str()] {
        let manifest = Manifest::parse(&MANIFEST.replace("TOKEN", token)).unwrap();
        let plan = bottle_testing::plans::plan(&manifest);
        let slots: Vec<_> = plan.wanted_variables().into_iter().map(|wanted| wanted.name.to_string()).collect();
        assert_eq!(slots, [format!("EGRESS_TOKEN_{token}"), format!("GIT_GATE_TOKEN_{token}")]);
        let written = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<BottlePlan>(&written).unwrap(), plan);
    }
}

#[test]
fn a_token_in_place_of_a_name_is_refused_and_not_repeated() {
    for token in
        ["ghp_16C7e42F292c6912E7710c838347Ae178B4a", "sk_live_51H8xQ2eZvKYlo2C", "aB3dE5fG7hI9jK1lM3nO5pQ7rS9t"]
    {
        for (what, manifest) in [
            ("inject", MANIFEST.replacen("TOKEN", token, 1)),
            ("upstream", MANIFEST.replace("token: TOKEN}]", &format!("token: {token}}}]"))),
            ("forward", MANIFEST.replace("    git:", &format!("    env: {{A: {{forward: {token}}}}}\n    git:"))),
            ("interpolated", MANIFEST.replace("    git:", &format!("    env: {{A: '${{{token}}}'}}\n    git:"))),
        ] {
            let error = Manifest::parse(&manifest).expect_err(what);
            let error = format!("{error}\n{}", error.drawn(false));
            assert!(error.contains("looks like a token itself") && !error.contains(&token[5..]), "{what}: {error}");
        }
    }
}

#[test]
fn a_dollar_forwards_a_variable_or_is_doubled() {
    let of = |text: &str| {
        let manifest =
            json!({"bottles": {"dev": {"env": {"A": text}}}, "agents": {"demo": {"bottle": "dev", "command": ["id"]}}});
        Manifest::parse(&manifest.to_string()).map(|manifest| {
            let plan = bottle_testing::plans::plan(&manifest).agent;
            (plan.literals.into_values().next(), plan.forwarded.into_values().next().map(|name| name.to_string()))
        })
    };
    let forward = |name: &str| (None, Some(name.to_owned()));
    let literal = |text: &str| (Some(text.to_owned()), None);
    for (text, means) in [
        ("$TOKEN", forward("TOKEN")),
        ("${TOKEN}", forward("TOKEN")),
        ("$token_2", forward("token_2")),
        ("$$TOKEN", literal("$TOKEN")),
        ("$${TOKEN}", literal("${TOKEN}")),
        ("a$$b$$$$c", literal("a$b$$c")),
        ("$5 and $", literal("$5 and $")),
        ("$(id)", literal("$(id)")),
        ("", literal("")),
    ] {
        assert_eq!(of(text), Ok(means), "{text}");
    }
    for (text, shown) in [
        ("${HOME}/x", "`${HOME}`"),
        ("$HOME/x", "`$HOME`"),
        ("a $B", "`$B`"),
        ("${HOME:-x}", "`${HOME}`"),
        ("$A$B", "`$A`"),
        ("$$$A", "`$A`"),
        ("${", "`${…}`"),
        ("${1}", "`${…}`"),
        ("x${ghp_16C7e42F292c6912E7710c838347Ae178B4a}", "`${…}`"),
    ] {
        let error = of(text).expect_err(text);
        let mistake = error.mistakes[0].to_string();
        assert!(
            mistake.contains(shown) && mistake.contains("{forward: ") && mistake.contains("`$$` for a"),
            "{mistake}"
        );
        assert!(!error.drawn(false).contains("16C7e42F"), "{}", error.drawn(false));
    }
}
