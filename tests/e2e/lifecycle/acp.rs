//! An editor whose agent is in a bottle, over the Agent Client Protocol.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_client_protocol::schema::ProtocolVersion;
use agent_client_protocol::v1::ConnectionTo;
use agent_client_protocol::v1::schema::{
    ContentBlock, InitializeRequest, NewSessionRequest, PromptRequest, SessionNotification, SessionUpdate, StopReason,
    TextContent,
};
use agent_client_protocol::{AcpAgent, AcpAgentConfig, Agent, Client, on_receive_notification};
use bottle::Bottles;
use bottle::plan::StateRoot;
use bottle_testing::lab::{docker, engine, example, host, pipelock_image, scratch};
use tokio::runtime::Builder;

#[test]
#[ignore = "needs a container engine"]
fn an_editor_talks_to_an_agent_in_a_bottle() {
    let place = tempfile::Builder::new().prefix("acp-").tempdir_in(scratch()).unwrap();
    let work = place.path().join("work");
    std::fs::create_dir(&work).unwrap();
    std::fs::copy(example("acp_agent").get_program(), work.join("agent")).unwrap();
    std::fs::write(work.join("note"), "the note").unwrap();
    let manifest = place.path().join("bottle.yaml");
    let text = format!(
        "bottles:\n  lab:\n    images: {{pipelock: '{}'}}\n    workspace: {{path: '{}'}}\nagents:\n  acp-editor:\n    bottle: lab\n    command: [/workspace/agent]\n",
        pipelock_image(),
        work.display()
    );
    std::fs::write(&manifest, text).unwrap();
    let config = AcpAgentConfig::new(example("acp").get_program())
        .args(["--manifest".to_owned(), manifest.display().to_string()])
        .env("CLAUDE_BOTTLE_STATE", place.path().join("state").display().to_string());
    let answers: Arc<Mutex<String>> = Arc::default();
    let heard = Arc::clone(&answers);
    let client = Client
        .v1()
        .on_receive_notification(
            async move |told: SessionNotification, _| {
                if let SessionUpdate::AgentMessageChunk(chunk) = told.update
                    && let ContentBlock::Text(text) = chunk.content
                {
                    heard.lock().unwrap().push_str(&text.text);
                }
                Ok(())
            },
            on_receive_notification!(),
        )
        .connect_with(AcpAgent::new(config), async |connection: ConnectionTo<Agent>| {
            connection.send_request(InitializeRequest::new(ProtocolVersion::V1)).block_task().await?;
            let session = connection.send_request(NewSessionRequest::new("/workspace")).block_task().await?.session_id;
            let prompt = vec![ContentBlock::Text(TextContent::new("hello"))];
            let ended = connection.send_request(PromptRequest::new(session, prompt)).block_task().await?;
            assert_eq!(ended.stop_reason, StopReason::EndTurn);
            Ok(())
        });
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(120), client).await.unwrap().unwrap() });
    let answer = answers.lock().unwrap().clone();
    assert!(answer.starts_with("the note of ") && answer.ends_with(": hello") && !answer.contains("of 0:"), "{answer}");
    // The client kills what it started, so a recovery removes what the launcher had no time for.
    let bottles = Bottles::new(engine(), host()).with_state_root(StateRoot::at(place.path().join("state")));
    let left = || {
        let containers = docker(["ps", "--all", "--format", "{{.Names}}", "--filter", "name=-acp-editor-"]).stdout;
        containers + &docker(["images", "--format", "{{.Tag}}", "claude-bottle-workspace:acp-editor-*"]).stdout
    };
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while !left().is_empty() {
        assert!(std::time::Instant::now() < until, "left: {}", left());
        std::thread::sleep(Duration::from_millis(200));
        assert!(bottles.recover().unwrap().is_clean());
    }
}
