//! Whether a registry is there at all.

use boatyard_oci::RegistryHost;

use super::client::Client;
use super::error::{ClientError, Deed};
use crate::answer::Answer;

impl Client {
    /// Asks whether a registry answers. One that wants credentials is there, too.
    ///
    /// # Errors
    /// Where it cannot be reached, or answers that it cannot serve.
    pub async fn reach(&self, registry: &RegistryHost) -> Result<(), ClientError> {
        let deed = Deed::of_registry("connect", registry);
        let endpoint = self.endpoint(registry, self.is_insecure(registry));
        let transport = |source| ClientError::Transport { deed: deed.clone(), source };
        let base = self.base(&endpoint).await.map_err(transport)?;
        let answer = self.ping(&base, endpoint.insecure, None, &deed).await?;
        if answer.status.is_server_error() {
            return Err(ClientError::of(deed, Answer::read(answer).await, None));
        }
        Ok(())
    }
}
