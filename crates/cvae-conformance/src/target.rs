//! What is under test.

use std::sync::Arc;

use cvae_core::{Backend, Unsupported};

/// Makes the same backend with another number of threads.
pub type ThreadFactory = Arc<dyn Fn(usize) -> Result<Arc<dyn Backend>, Unsupported> + Send + Sync>;

/// A backend under test, or the reason why it cannot be tested here.
#[derive(Clone)]
pub struct Subject {
    id: String,
    state: Result<Arc<dyn Backend>, String>,
    threads: Option<ThreadFactory>,
    deviations: Vec<Deviation>,
}

/// A stated difference of a backend from the definition: its checks are reported as skipped, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deviation {
    /// Checks whose name starts so.
    pub prefix: &'static str,
    /// Why the backend differs.
    pub reason: &'static str,
}

impl Subject {
    /// A backend that can be tested.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self { id: backend.id().to_string(), state: Ok(backend), threads: None, deviations: vec![] }
    }

    /// A backend that cannot be tested here: every check of it is skipped with `reason`.
    pub fn unavailable(id: &str, reason: impl Into<String>) -> Self {
        Self { id: id.to_owned(), state: Err(reason.into()), threads: None, deviations: vec![] }
    }

    /// Adds the means to choose a number of threads, for the checks of determinism.
    #[must_use]
    pub fn with_threads(
        mut self,
        make: impl Fn(usize) -> Result<Arc<dyn Backend>, Unsupported> + Send + Sync + 'static,
    ) -> Self {
        self.threads = Some(Arc::new(make));
        self
    }

    /// States a difference from the definition.
    #[must_use]
    pub fn with_deviation(mut self, prefix: &'static str, reason: &'static str) -> Self {
        self.deviations.push(Deviation { prefix, reason });
        self
    }

    /// The backend's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Why the backend cannot be tested here, if so.
    pub fn unavailable_reason(&self) -> Option<&str> {
        self.state.as_ref().err().map(String::as_str)
    }

    /// The reason to skip the check `name`, if there is one.
    pub(crate) fn skip_reason(&self, name: &str) -> Option<&str> {
        let deviation = self.deviations.iter().find(|deviation| name.starts_with(deviation.prefix));
        self.unavailable_reason().or(deviation.map(|deviation| deviation.reason))
    }

    /// What the checks run on.
    pub(crate) fn target(&self) -> Result<Target<'_>, &str> {
        match &self.state {
            Ok(backend) => Ok(Target { threads: self.threads.as_ref(), ..Target::new(backend.as_ref()) }),
            Err(reason) => Err(reason),
        }
    }
}

/// A backend as the checks see it.
pub(crate) struct Target<'a> {
    pub(crate) backend: &'a dyn Backend,
    pub(crate) threads: Option<&'a ThreadFactory>,
    /// Spacing of the backend's numbers at 1.
    pub(crate) epsilon: f64,
}

impl<'a> Target<'a> {
    /// A backend without a choice of threads.
    pub(crate) fn new(backend: &'a dyn Backend) -> Self {
        Self { backend, threads: None, epsilon: epsilon(backend.id().as_str()) }
    }

    /// Whether the backend computes in double precision.
    pub(crate) fn is_double(&self) -> bool {
        self.epsilon < f64::from(f32::EPSILON)
    }
}

/// Spacing of the numbers of a backend at 1: precision is part of an id.
fn epsilon(id: &str) -> f64 {
    match id {
        "reference" => f64::EPSILON,
        _ if id.ends_with("-f64") => f64::EPSILON,
        _ if id.ends_with("-bf16") => 2f64.powi(-7),
        _ if id.ends_with("-tf32") => 2f64.powi(-10),
        _ => f64::from(f32::EPSILON),
    }
}
