//! gRPC by hand: the calls of a device plugin on their paths, and calls of kubelet's.
//!
//! Owns which path leads to which answer. It stands for what a generator would write, so that no build needs one; an
//! independent client with generated code checks it.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::error::Error;
use std::future::ready;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use prost::Message;
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::server::Grpc;
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

use super::answers::Answers;
use super::keeper::plugin_options;
use super::messages::{self, Empty};

/// How long a peer may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Longest message from kubelet: what its own client of pod-resources accepts.
const LONGEST_MESSAGE: usize = 16 << 20;

type HttpRequest = http::Request<Body>;
type HttpResponse = http::Response<Body>;

/// The calls of one resource.
#[derive(Clone)]
pub(super) struct Routes {
    answers: Arc<Answers>,
    /// Turns true when streams must end.
    ending: watch::Receiver<bool>,
}

impl Routes {
    pub(super) fn new(answers: Arc<Answers>, ending: watch::Receiver<bool>) -> Routes {
        Routes { answers, ending }
    }

    async fn answer(self, request: HttpRequest) -> HttpResponse {
        let answers = self.answers;
        match request.uri().path() {
            messages::OPTIONS => unary(request, |_: Empty| ready(Ok(plugin_options()))).await,
            messages::PREFERRED => unary(request, |question| answers.preferred(question)).await,
            messages::ALLOCATE => unary(request, |question| answers.allocate(question)).await,
            messages::PRE_START => unary(request, |question| answers.pre_start(question)).await,
            messages::LIST_AND_WATCH => {
                let service = service_fn(|_: Request<Empty>| {
                    let stream = Arc::clone(&answers).list_and_watch(self.ending.clone());
                    async move { Ok::<_, Status>(Response::new(stream)) }
                });
                Grpc::new(ProstCodec::default()).server_streaming(service, request).await
            }
            path => Status::unimplemented(format!("there is no {path} here")).into_http(),
        }
    }
}

impl Service<HttpRequest> for Routes {
    type Response = HttpResponse;
    type Error = Infallible;
    type Future = BoxFuture<HttpResponse, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest) -> Self::Future {
        let routes = self.clone();
        Box::pin(async move { Ok(routes.answer(request).await) })
    }
}

/// A call with one question and one answer.
async fn unary<Q, A, F>(request: HttpRequest, answer: impl Fn(Q) -> F) -> HttpResponse
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
    F: Future<Output = Result<A, Status>>,
{
    let service = service_fn(|question: Request<Q>| {
        let answer = answer(question.into_inner());
        async move { answer.await.map(Response::new) }
    });
    Grpc::new(ProstCodec::<A, Q>::default()).unary(service, request).await
}

/// Calls `path` of who listens on `socket`, and waits at most `limit` for the answer. An error is one line.
pub(super) async fn call<Q, A>(socket: &Path, path: &'static str, limit: Duration, question: Q) -> Result<A, String>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let endpoint = Endpoint::try_from(format!("unix://{}", socket.display())).map_err(|error| causes(&error))?;
    let ask = async {
        let channel = endpoint.connect_timeout(CONNECT_LIMIT).connect().await.map_err(|error| causes(&error))?;
        let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(LONGEST_MESSAGE);
        client.ready().await.map_err(|error| causes(&error))?;
        let path = http::uri::PathAndQuery::from_static(path);
        let answer = client.unary(Request::new(question), path, ProstCodec::<Q, A>::default()).await;
        answer.map(Response::into_inner).map_err(|status| format!("{:?}: {}", status.code(), status.message()))
    };
    let answer = tokio::time::timeout(limit, ask).await;
    answer.unwrap_or_else(|_| Err(format!("no answer in {} s", limit.as_secs())))
}

/// An error with its causes.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some repeat their cause.
        if !text.contains(&cause_text) {
            text += &format!(": {cause_text}");
        }
        next = cause.source();
    }
    text
}
