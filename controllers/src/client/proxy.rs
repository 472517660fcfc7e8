//! The road to a server: straight, or through a proxy.

use std::pin::Pin;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use tokio::net::TcpStream;
use tower::Service;

use super::chain;

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;
type Failure = Box<dyn std::error::Error + Send + Sync>;
/// To an https proxy over TLS, to any other without.
type ToProxy = HttpsConnector<HttpConnector>;

/// A proxy and who we are to it. Its user and password are in no text that is shown.
#[derive(Clone)]
pub struct Proxy {
    host: Authority,
    kind: Kind,
    user: Option<(String, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `CONNECT`, without TLS to the proxy itself.
    Http,
    /// `CONNECT`, over TLS.
    Https,
    Socks5,
}

impl Proxy {
    /// Reads `scheme://user:password@host:port`; user, password and port may be left out.
    ///
    /// # Errors
    /// What is wrong with it, without what it says.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("it has no scheme: http://HOST:PORT")?;
        let (kind, default_port) = match scheme {
            "http" => (Kind::Http, 80),
            "https" => (Kind::Https, 443),
            "socks5" => (Kind::Socks5, 1080),
            _ => return Err("its scheme is none of http, https and socks5".into()),
        };
        let (authority, path) = match rest.find(['/', '?', '#']) {
            Some(end) => rest.split_at(end),
            None => (rest, ""),
        };
        if !matches!(path, "" | "/") {
            return Err("there is something after its host and port".into());
        }
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(credentials(user)?), host),
            None => (None, authority),
        };
        let malformed = |_| "its host or port cannot be read".to_owned();
        let mut host: Authority = host.parse().map_err(malformed)?;
        let port = host.port_u16();
        // Without a port nothing but the host may stand there.
        if host.host().is_empty() || (port.is_none() && host.host() != host.as_str()) {
            return Err("its host or port cannot be read".into());
        }
        if port.is_none() {
            host = format!("{}:{default_port}", host.host()).parse().map_err(malformed)?;
        }
        Ok(Proxy { host, kind, user })
    }

    fn uri(&self) -> Uri {
        let scheme = if self.kind == Kind::Https { Scheme::HTTPS } else { Scheme::HTTP };
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(scheme);
        parts.authority = Some(self.host.clone());
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
        Uri::from_parts(parts).expect("scheme, host and path make a URI")
    }
}

fn credentials(text: &str) -> Result<(String, String), String> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    let decode = |text: &str| {
        let decoded = percent_decode_str(text).decode_utf8();
        decoded.map(String::from).map_err(|_| "its user or password is no text".to_owned())
    };
    Ok((decode(user)?, decode(password)?))
}

/// Connects to where a URI says, or has a proxy do it.
#[derive(Clone)]
pub(super) struct Road {
    way: Way,
    /// The proxy's host and port, for errors.
    by: Option<Authority>,
}

#[derive(Clone)]
enum Way {
    Straight(HttpConnector),
    Tunnel(Tunnel<ToProxy>),
    Socks(SocksV5<ToProxy>),
}

impl Road {
    /// `trust` is for a proxy that speaks TLS: it is believed as the server behind it is.
    pub(super) fn new(proxy: Option<&Proxy>, trust: &rustls::ClientConfig) -> Self {
        let mut straight = HttpConnector::new();
        straight.enforce_http(false);
        // A small frame must not wait for the answer to the frame before it: with Nagle's algorithm each hop of a
        // propagation takes 40 ms.
        straight.set_nodelay(true);
        let Some(proxy) = proxy else { return Road { way: Way::Straight(straight), by: None } };
        let to_proxy = HttpsConnectorBuilder::new()
            .with_tls_config(trust.clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(straight);
        let way = match (proxy.kind, &proxy.user) {
            (Kind::Socks5, None) => Way::Socks(SocksV5::new(proxy.uri(), to_proxy)),
            (Kind::Socks5, Some((user, password))) => {
                let socks = SocksV5::new(proxy.uri(), to_proxy);
                Way::Socks(socks.with_auth(user.clone(), password.clone()))
            }
            (_, None) => Way::Tunnel(Tunnel::new(proxy.uri(), to_proxy)),
            (_, Some((user, password))) => {
                let basic = BASE64_STANDARD.encode(format!("{user}:{password}"));
                let basic = HeaderValue::try_from(format!("Basic {basic}"));
                let basic = basic.expect("base64 is a header value");
                Way::Tunnel(Tunnel::new(proxy.uri(), to_proxy).with_auth(basic))
            }
        };
        Road { way, by: Some(proxy.host.clone()) }
    }
}

impl Service<Uri> for Road {
    type Response = Stream;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Failure>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match &mut self.way {
            Way::Straight(way) => way.poll_ready(context).map_err(Into::into),
            Way::Tunnel(way) => way.poll_ready(context).map_err(Into::into),
            Way::Socks(way) => way.poll_ready(context).map_err(|error| error.to_string().into()),
        }
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        let by = self.by.clone();
        let through = move |error: String| -> Failure {
            let by = by.as_ref().map_or("", Authority::as_str);
            format!("through the proxy {by}: {error}").into()
        };
        match &mut self.way {
            Way::Straight(way) => {
                let connecting = way.call(server);
                Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) })
            }
            Way::Tunnel(way) => {
                let connecting = way.call(server);
                Box::pin(async move { connecting.await.map_err(|error| through(chain(error))) })
            }
            Way::Socks(way) => {
                let connecting = way.call(server);
                // Its error keeps the cause to itself.
                Box::pin(
                    async move { connecting.await.map_err(|error| through(error.to_string())) },
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_read_from_its_url() {
        for (url, uri, user) in [
            ("http://proxy", "http://proxy:80/", None),
            ("http://proxy:3128/", "http://proxy:3128/", None),
            ("https://proxy", "https://proxy:443/", None),
            ("socks5://[::1]", "http://[::1]:1080/", None),
            ("http://me@proxy:1", "http://proxy:1/", Some(("me", ""))),
            ("http://me:p%40ss%3A@proxy:1", "http://proxy:1/", Some(("me", "p@ss:"))),
        ] {
            let proxy = Proxy::parse(url).unwrap_or_else(|why| panic!("{url}: {why}"));
            assert_eq!(proxy.uri(), uri, "{url}");
            let found = proxy.user.as_ref().map(|(user, word)| (user.as_str(), word.as_str()));
            assert_eq!(found, user, "{url}");
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused_and_its_password_kept() {
        for url in [
            "proxy:3128",
            "ftp://u:hunter2@proxy",
            "http://",
            "http://:80",
            "http://u:hunter2@",
            "http://u:hunter2@proxy:port",
            "http://u:hunter2@proxy:99999",
            "http://u:hunter2@proxy/path",
            "http://u:hunter2%ff@proxy",
        ] {
            let Err(why) = Proxy::parse(url) else { panic!("{url} is taken") };
            assert!(!why.contains("hunter2"), "{why}");
        }
    }
}
