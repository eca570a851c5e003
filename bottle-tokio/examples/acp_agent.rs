//! A small agent that speaks the Agent Client Protocol: it answers each prompt with its user, its directory and the prompt.

use agent_client_protocol::v1::schema::{
    AgentCapabilities, ContentBlock, ContentChunk, InitializeRequest, InitializeResponse, NewSessionRequest,
    NewSessionResponse, PromptRequest, PromptResponse, SessionId, SessionNotification, SessionUpdate, StopReason,
    TextContent,
};
use agent_client_protocol::{Agent, Stdio, on_receive_request};

fn main() -> agent_client_protocol::Result<()> {
    let agent = Agent
        .v1()
        .name("echo")
        .on_receive_request(
            async move |asked: InitializeRequest, responder, _| {
                let answer = InitializeResponse::new(asked.protocol_version);
                responder.respond(answer.agent_capabilities(AgentCapabilities::new()))
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |_: NewSessionRequest, responder, _| {
                responder.respond(NewSessionResponse::new(SessionId::new("1")))
            },
            on_receive_request!(),
        )
        .on_receive_request(
            async move |asked: PromptRequest, responder, connection| {
                let prompt = asked.prompt.iter().map(|block| match block {
                    ContentBlock::Text(text) => text.text.clone(),
                    _ => String::new(),
                });
                let files = std::fs::read_to_string("note").unwrap_or_default();
                let answer = format!("{} of {}: {}", files.trim(), owner(), prompt.collect::<String>());
                let chunk = ContentChunk::new(ContentBlock::Text(TextContent::new(answer)));
                let update = SessionUpdate::AgentMessageChunk(chunk);
                connection.send_notification(SessionNotification::new(asked.session_id, update))?;
                responder.respond(PromptResponse::new(StopReason::EndTurn))
            },
            on_receive_request!(),
        );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(agent_client_protocol::Error::into_internal_error)?.block_on(agent.connect_to(Stdio::new()))
}

/// Returns the user that the agent runs as.
fn owner() -> u32 {
    rustix::process::geteuid().as_raw()
}
