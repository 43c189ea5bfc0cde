//! A kubelet as far as a device plugin sees it: the Registration service, and the client of what registers.
//!
//! [`Kubelet::start`] does what kubelet does when it starts, in the manner that [`Manner`] says; dropping it is its end.
//! Its threads talk to plugins, and tests ask it from theirs. [`PodResources`] is the other service of kubelet.

mod api;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

pub use api::*;
use prost::Message;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::task::AbortHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{BoxFuture, http};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

use crate::vm::{Error, Result, poll};

/// How long kubelet gives a plugin to answer its dial.
const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// How long tests wait for what must come; a busy machine is slow.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often they look.
const EVERY: Duration = Duration::from_millis(5);

/// How a kubelet behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Answers Register at once and dials later, as before 1.26. Later ones answer after they have dialled and
    /// GetDevicePluginOptions was answered.
    pub dials_later: bool,
    /// Leaves the sockets that it finds when it starts. Real ones remove them.
    pub keeps_sockets: bool,
    /// Answers this many registrations well and then removes all plugins' sockets and forgets them: a start that races
    /// with a registration.
    pub wipes_after: usize,
}

/// The kubelet.
pub struct Kubelet {
    state: Arc<State>,
    // Dropped last: ends every connection.
    runtime: Runtime,
}

struct State {
    directory: PathBuf,
    manner: Manner,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    registrations: Vec<RegisterRequest>,
    wiped: bool,
    plugins: BTreeMap<String, Plugin>,
}

/// What is known of a registered plugin.
#[derive(Clone)]
struct Plugin {
    channel: Channel,
    /// The last list, while its stream is open.
    devices: Option<Vec<Device>>,
    /// How the stream ended.
    ended: Option<Code>,
    /// Ends the stream from this side.
    watching: Option<AbortHandle>,
}

/// A refusal of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub code: Code,
    /// Its text.
    pub text: String,
}

impl Kubelet {
    /// Starts in its directory of device plugins.
    pub fn start(directory: &Path, manner: Manner) -> Result<Kubelet> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(Error::during("starting the kubelet's runtime"))?;
        match manner.keeps_sockets {
            true => drop(fs::remove_file(directory.join("kubelet.sock"))),
            false => wipe(directory)?,
        }
        let state = Arc::new(State { directory: directory.to_owned(), manner, seen: Mutex::default() });
        serve(&runtime, &directory.join("kubelet.sock"), Arc::clone(&state))?;
        Ok(Kubelet { state, runtime })
    }

    /// All registrations so far.
    pub fn registrations(&self) -> Vec<RegisterRequest> {
        self.state.seen().registrations.clone()
    }

    /// The devices of a resource by its last list, while its stream is open.
    pub fn devices(&self, resource: &str) -> Option<Vec<Device>> {
        self.state.seen().plugins.get(resource)?.devices.clone()
    }

    /// How the stream of a resource ended, if it did.
    pub fn ended(&self, resource: &str) -> Option<Code> {
        self.state.seen().plugins.get(resource)?.ended
    }

    /// Waits for a list of devices with which `condition` is content.
    pub fn wait_for(&self, resource: &str, condition: impl Fn(&[Device]) -> bool) -> Result<Vec<Device>> {
        let what = format!("devices of {resource}");
        let found = poll(&what, PATIENCE, EVERY, || Ok(self.devices(resource).filter(|devices| condition(devices))));
        found.map_err(|error| error.with(format!("last seen: {:?}", self.devices(resource))))
    }

    /// Waits until a resource has `healthy` healthy devices and no other.
    pub fn wait_for_healthy(&self, resource: &str, healthy: usize) -> Result<Vec<Device>> {
        self.wait_for(resource, |devices| {
            devices.len() == healthy && devices.iter().all(|device| device.health == "Healthy")
        })
    }

    /// Calls Allocate for one container.
    pub fn allocate(&self, resource: &str, ids: &[&str]) -> Result<ContainerAllocateResponse, Refusal> {
        let devices_ids = ids.iter().map(ToString::to_string).collect();
        let question = AllocateRequest { container_requests: vec![ContainerAllocateRequest { devices_ids }] };
        let answer: AllocateResponse = self.call(resource, "/v1beta1.DevicePlugin/Allocate", question)?;
        assert_eq!(answer.container_responses.len(), 1, "{answer:?}");
        Ok(answer.container_responses[0].clone())
    }

    /// Calls PreStartContainer.
    pub fn pre_start(&self, resource: &str, ids: &[&str]) -> Result<(), Refusal> {
        let question = PreStartContainerRequest { devices_ids: ids.iter().map(ToString::to_string).collect() };
        self.call(resource, "/v1beta1.DevicePlugin/PreStartContainer", question).map(|_: Empty| ())
    }

    /// Calls GetPreferredAllocation for one container.
    pub fn preferred(
        &self,
        resource: &str,
        available: &[&str],
        must: &[&str],
        size: i32,
    ) -> Result<Vec<String>, Refusal> {
        let list = |ids: &[&str]| ids.iter().map(ToString::to_string).collect();
        let request = ContainerPreferredAllocationRequest {
            available_device_ids: list(available),
            must_include_device_ids: list(must),
            allocation_size: size,
        };
        let question = PreferredAllocationRequest { container_requests: vec![request] };
        let answer: PreferredAllocationResponse =
            self.call(resource, "/v1beta1.DevicePlugin/GetPreferredAllocation", question)?;
        Ok(answer.container_responses.into_iter().flat_map(|response| response.device_ids).collect())
    }

    /// Calls any method with any message.
    pub fn call<Q, A>(&self, resource: &str, path: &'static str, question: Q) -> Result<A, Refusal>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let plugin = self.state.seen().plugins.get(resource).cloned();
        let channel = plugin.unwrap_or_else(|| panic!("{resource} is not registered")).channel;
        let answer =
            self.runtime.block_on(async { tokio::time::timeout(PATIENCE, unary(channel, path, question)).await });
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("the test waited too long")));
        answer.map_err(|status| Refusal { code: status.code(), text: status.message().to_owned() })
    }

    /// Forgets a plugin and its connection, without a word.
    pub fn hang_up(&self, resource: &str) {
        if let Some(plugin) = self.state.seen().plugins.remove(resource)
            && let Some(watching) = plugin.watching
        {
            watching.abort();
        }
    }
}

/// Removes every socket, as kubelet does when it starts.
fn wipe(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory).map_err(Error::during("reading kubelet's directory"))?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_socket()) {
            // The plugin may have removed it at this moment.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

impl State {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn register(self: Arc<Self>, request: RegisterRequest) -> Result<Empty, Status> {
        self.seen().registrations.push(request.clone());
        if self.manner.dials_later {
            let later = Arc::clone(&self);
            tokio::spawn(async move { later.dial(request).await });
        } else {
            Arc::clone(&self).dial(request).await?;
        }
        let race = {
            let mut seen = self.seen();
            let race = !seen.wiped && seen.registrations.len() == self.manner.wipes_after;
            if race {
                seen.wiped = true;
                seen.plugins.clear();
            }
            race
        };
        if race {
            // All but its own.
            for entry in fs::read_dir(&self.directory)?.flatten() {
                if entry.file_name() != "kubelet.sock" && entry.file_type()?.is_socket() {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(Empty {})
    }

    /// Connects to a plugin, asks for its options, and begins to watch its devices.
    async fn dial(self: Arc<Self>, request: RegisterRequest) -> Result<(), Status> {
        let path = self.directory.join(&request.endpoint);
        let channel = tokio::time::timeout(DIAL_LIMIT, connect(&path)).await;
        let channel = channel.map_err(|_| Status::deadline_exceeded("dialling the plugin"))??;
        let options: DevicePluginOptions =
            unary(channel.clone(), "/v1beta1.DevicePlugin/GetDevicePluginOptions", Empty {}).await?;
        if request.options != Some(options) {
            return Err(Status::internal("the options differ from those of the registration"));
        }
        let plugin = Plugin { channel: channel.clone(), devices: None, ended: None, watching: None };
        let resource = request.resource_name;
        self.seen().plugins.insert(resource.clone(), plugin);
        let (state, name) = (Arc::clone(&self), resource.clone());
        let watching = tokio::spawn(async move {
            let code = self.watch(&resource, channel).await.err().map_or(Code::Ok, |status| status.code());
            if let Some(plugin) = self.seen().plugins.get_mut(&resource) {
                plugin.devices = None;
                plugin.ended = Some(code);
            }
        });
        if let Some(plugin) = state.seen().plugins.get_mut(&name) {
            plugin.watching = Some(watching.abort_handle());
        }
        Ok(())
    }

    async fn watch(&self, resource: &str, channel: Channel) -> Result<(), Status> {
        let mut client = client(channel).await?;
        let path = PathAndQuery::from_static("/v1beta1.DevicePlugin/ListAndWatch");
        let codec = ProstCodec::<Empty, ListAndWatchResponse>::default();
        let mut lists = client.server_streaming(Request::new(Empty {}), path, codec).await?.into_inner();
        while let Some(list) = lists.message().await? {
            if let Some(plugin) = self.seen().plugins.get_mut(resource) {
                plugin.devices = Some(list.devices);
            }
        }
        Ok(())
    }
}

async fn connect(path: &Path) -> Result<Channel, Status> {
    let endpoint = Endpoint::try_from(format!("unix://{}", path.display()));
    let channel = endpoint.map_err(|error| Status::internal(error.to_string()))?.connect().await;
    channel.map_err(|error| Status::unavailable(error.to_string()))
}

async fn client(channel: Channel) -> Result<tonic::client::Grpc<Channel>, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(client)
}

async fn unary<Q, A>(channel: Channel, path: &'static str, question: Q) -> Result<A, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let codec = ProstCodec::<Q, A>::default();
    let answer = client(channel).await?.unary(Request::new(question), PathAndQuery::from_static(path), codec).await;
    answer.map(Response::into_inner)
}

/// Serves `service` on a socket until the runtime ends.
fn serve(runtime: &Runtime, path: &Path, service: Arc<impl Served>) -> Result<()> {
    let _inside = runtime.enter();
    let listener = UnixListener::bind(path).map_err(Error::during(format!("listening on {}", path.display())))?;
    let incoming = UnixListenerStream::new(listener);
    runtime.spawn(Server::builder().serve_with_incoming(Calls(service), incoming));
    Ok(())
}

/// A service with one call.
trait Served: Send + Sync + 'static {
    fn answer(self: Arc<Self>, request: http::Request<Body>) -> BoxFuture<http::Response<Body>, Infallible>;
}

struct Calls<T>(Arc<T>);

impl<T> Clone for Calls<T> {
    fn clone(&self) -> Self {
        Calls(Arc::clone(&self.0))
    }
}

impl<T: Served> Service<http::Request<Body>> for Calls<T> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Arc::clone(&self.0).answer(request)
    }
}

impl Served for State {
    fn answer(self: Arc<Self>, request: http::Request<Body>) -> BoxFuture<http::Response<Body>, Infallible> {
        Box::pin(async move {
            if request.uri().path() != "/v1beta1.Registration/Register" {
                return Ok(Status::unimplemented("only Register").into_http());
            }
            let service = service_fn(move |request: Request<RegisterRequest>| {
                let state = Arc::clone(&self);
                async move { state.register(request.into_inner()).await.map(Response::new) }
            });
            let codec = ProstCodec::<Empty, RegisterRequest>::default();
            Ok(tonic::server::Grpc::new(codec).unary(service, request).await)
        })
    }
}

/// Kubelet's pod-resources, with an answer that does not change.
pub struct PodResourcesServer {
    _runtime: Runtime,
}

struct Pods(ListPodResourcesResponse);

impl PodResourcesServer {
    /// Serves `pods` on a socket.
    pub fn start(path: &Path, pods: ListPodResourcesResponse) -> Result<PodResourcesServer> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(Error::during("starting the runtime of pod-resources"))?;
        serve(&runtime, path, Arc::new(Pods(pods)))?;
        Ok(PodResourcesServer { _runtime: runtime })
    }
}

impl Served for Pods {
    fn answer(self: Arc<Self>, request: http::Request<Body>) -> BoxFuture<http::Response<Body>, Infallible> {
        Box::pin(async move {
            if request.uri().path() != "/v1.PodResourcesLister/List" {
                return Ok(Status::unimplemented("only List").into_http());
            }
            let service = service_fn(move |_: Request<Empty>| {
                let pods = self.0.clone();
                async move { Ok::<_, Status>(Response::new(pods)) }
            });
            let codec = ProstCodec::<ListPodResourcesResponse, Empty>::default();
            Ok(tonic::server::Grpc::new(codec).unary(service, request).await)
        })
    }
}
