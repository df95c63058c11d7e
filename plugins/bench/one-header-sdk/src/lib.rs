//! Sets one header, on the SDK: what the SDK itself costs, beside `one-header`.

use portcullis_sdk::{Filter, Host, Next, NoConfig, Request, Response, StartError};

struct OneHeader;

impl Filter for OneHeader {
    type Config = NoConfig;

    async fn start(_: NoConfig, _: &Host) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn handle(&self, mut request: Request, next: Next) -> Response {
        request.headers_mut().set("x-one", "1");
        next.run(request).await
    }
}

portcullis_sdk::export_filter!(OneHeader);
