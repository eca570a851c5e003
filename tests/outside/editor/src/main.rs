//! An editor's side of the Agent Client Protocol: `editor PROMPT COMMAND...` starts the agent's command, allows what it asks for,
//! and prints its answer.

use std::env::args;
use std::io::{Error, Write as _, stdout};

use agent_client_protocol::schema::ProtocolVersion;
use agent_client_protocol::v1::ConnectionTo;
use agent_client_protocol::v1::schema::{
    ContentBlock, InitializeRequest, NewSessionRequest, PermissionOptionKind, PromptRequest, RequestPermissionOutcome,
    RequestPermissionRequest, RequestPermissionResponse, SelectedPermissionOutcome, SessionNotification, SessionUpdate,
    TextContent,
};
use agent_client_protocol::{AcpAgent, AcpAgentConfig, Agent, Client, on_receive_notification, on_receive_request};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = args().skip(1);
    let (Some(text), Some(program)) = (args.next(), args.next()) else {
        return Err(Error::other("usage: editor PROMPT COMMAND...").into());
    };
    let agent = AcpAgent::new(AcpAgentConfig::new(program).args(args));
    let client = Client
        .v1()
        .on_receive_notification(
            async move |told: SessionNotification, _| {
                if let SessionUpdate::AgentMessageChunk(chunk) = told.update
                    && let ContentBlock::Text(text) = chunk.content
                {
                    print!("{}", text.text);
                    _ = stdout().flush();
                }
                Ok(())
            },
            on_receive_notification!(),
        )
        .on_receive_request(
            async move |asked: RequestPermissionRequest, responder, _| {
                let option = asked.options.into_iter().find(|option| option.kind == PermissionOptionKind::AllowOnce);
                responder.respond(RequestPermissionResponse::new(match option {
                    Some(it) => RequestPermissionOutcome::Selected(SelectedPermissionOutcome::new(it.option_id)),
                    None => RequestPermissionOutcome::Cancelled,
                }))
            },
            on_receive_request!(),
        )
        .connect_with(agent, async |connection: ConnectionTo<Agent>| {
            connection.send_request(InitializeRequest::new(ProtocolVersion::V1)).block_task().await?;
            let session = connection.send_request(NewSessionRequest::new("/workspace")).block_task().await?.session_id;
            let prompt = vec![ContentBlock::Text(TextContent::new(text))];
            let ended = connection.send_request(PromptRequest::new(session, prompt)).block_task().await?;
            eprintln!("{:?}", ended.stop_reason);
            Ok(())
        });
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(client)?;
    Ok(())
}
