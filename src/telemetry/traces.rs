//! Spans on their way to a collector: OTLP over HTTP, in JSON.

use std::fmt;
use std::sync::Arc;

use boatyard_upstream::transport::{Outgoing, Payload, Transport};
use boatyard_upstream::{ProxyUse, Timeouts, Trust};
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::config;
use crate::report::{Context as _, Failure, Result};

/// The most bytes of a collector's answer that are read.
const ANSWER_MAX: usize = 64 * 1024;

/// What sends spans; what is waiting is sent when it goes.
pub struct Traces {
    provider: SdkTracerProvider,
    /// On which the exporter's requests run: its own thread has no sockets.
    _runtime: Runtime,
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces").finish_non_exhaustive()
    }
}

impl Traces {
    /// Says what is wrong with a configuration.
    pub fn check(config: &config::Traces) -> Result<()> {
        let is_url = |url: &String| url.starts_with("http://") || url.starts_with("https://");
        if config.endpoint.as_ref().is_none_or(is_url) && (0.0..=1.0).contains(&config.ratio) {
            return Ok(());
        }
        Err(Failure::usage("[traces] cannot be used")
            .hint("`endpoint` is a URL such as http://collector.example:4318, `ratio` from 0 to 1"))
    }

    /// Begins to send, where the configuration names a collector.
    pub fn start(config: &config::Traces) -> Result<Option<Traces>> {
        Traces::check(config)?;
        let Some(endpoint) = &config.endpoint else { return Ok(None) };
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("traces")
            .enable_all()
            .build()
            .context("cannot start the thread that sends traces")?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::new(runtime.handle().clone()))
            .with_protocol(Protocol::HttpJson)
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .build()
            .context("cannot send traces")?;
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.ratio)));
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(sampler)
            .with_resource(Resource::builder().with_service_name("boatyard").build())
            .build();
        Ok(Some(Traces { provider, _runtime: runtime }))
    }

    /// Returns what makes spans.
    pub fn tracer(&self) -> SdkTracer {
        self.provider.tracer("boatyard")
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!("the last traces were not sent: {error}");
        }
    }
}

/// The exporter's way out.
struct Collector {
    transport: Arc<Transport>,
    runtime: Handle,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").finish_non_exhaustive()
    }
}

impl Collector {
    fn new(runtime: Handle) -> Collector {
        let agent = HeaderValue::from_static(concat!("boatyard/", env!("CARGO_PKG_VERSION")));
        let (trust, timeouts) = (Trust::default(), Timeouts::default());
        let transport = Arc::new(Transport::new(trust, timeouts, agent, ProxyUse::System));
        Collector { transport, runtime }
    }
}

#[async_trait::async_trait]
impl HttpClient for Collector {
    async fn send_bytes(
        &self,
        request: Request<Bytes>,
    ) -> std::result::Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let url = parts.uri.to_string().parse()?;
        let transport = Arc::clone(&self.transport);
        let sent = self.runtime.spawn(async move {
            let outgoing = Outgoing {
                method: parts.method,
                url,
                headers: parts.headers,
                payload: Payload::Bytes(body),
                unchecked: false,
            };
            let answer = transport.send(outgoing).await?;
            let status = answer.status;
            let bytes = answer.bytes(ANSWER_MAX).await?;
            Ok::<_, HttpError>(Response::builder().status(status).body(bytes)?)
        });
        sent.await?
    }
}
