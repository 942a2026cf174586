//! What is stored as Parquet, as tables for SQL: the archive's points, and the embedded store's
//! rollups.
//!
//! Files are chosen here rather than by a listing of DataFusion's, because not every file that lies
//! there counts: see [`sinks::parquet::live`].

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, ScalarValue, plan_err};
use datafusion::datasource::TableType;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result as PlanResult;
use datafusion::execution::object_store::{ObjectStoreRegistry, ObjectStoreUrl};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::prelude::{SessionConfig, SessionContext, lit};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use operators::sql::batch_session;
use sinks::parquet::live::{Hours, is_hidden, is_missing};
use sinks::parquet::{live_files, unmarked_schema};
use url::Url;

use crate::error::{Error, Result};

/// Under this name a session finds the store, whatever it is.
const STORE: &str = "tidemark://storage";

/// The storage root. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cold {
    pub store: Arc<dyn ObjectStore>,
    /// The storage's root in `store`.
    pub prefix: Path,
}

impl Cold {
    /// Opens the storage at a URL or in a folder.
    ///
    /// # Errors
    /// A URL that leads to no store.
    pub fn open(url: &str) -> Result<Self> {
        let (store, prefix) = sinks::parquet::store::open(url)?;
        Ok(Self { store, prefix })
    }

    /// A session in which the functions of rollups and the store are known; it spills to disk
    /// beyond `memory` bytes.
    pub(crate) fn session(&self, memory: Option<usize>) -> Result<SessionContext> {
        let mut runtime = RuntimeEnvBuilder::new();
        if let Some(memory) = memory {
            runtime = runtime.with_memory_limit(memory, 1.0);
        }
        let storage = OnlyStorage { url: ObjectStoreUrl::parse(STORE)?, store: Arc::clone(&self.store) };
        let runtime = runtime.with_object_store_registry(Arc::new(storage)).build_arc()?;
        Ok(batch_session(SessionConfig::new(), runtime))
    }

    /// The files of points that count, of the hours with a part in `range`, or of all.
    ///
    /// # Errors
    /// Storage that cannot be read.
    pub async fn hours(&self, range: Option<(i64, i64)>) -> Result<Hours> {
        Ok(live_files(&self.store, &self.prefix, range).await?)
    }

    /// The files of a rollup in the embedded store.
    pub(crate) async fn rollup_files(&self, table: &str) -> Result<Vec<ObjectMeta>> {
        let folder = self.prefix.clone().join("rollups").join(table);
        let files = self.store.list(Some(&folder)).try_filter(|file| {
            let counts = file.location.extension() == Some("parquet") && !is_hidden(&file.location);
            std::future::ready(counts)
        });
        Ok(files.try_collect().await.map_err(sinks::Error::Store)?)
    }

    /// Files as one table; none when there is no file. Columns are those of all files. A file that
    /// is none of the table's costs itself where `set_aside` takes it, and is an error otherwise:
    /// what is compared or mended has to be whole.
    ///
    /// # Errors
    /// [`Error::File`] with the file that cannot be read, or that has other columns or types.
    pub(crate) async fn table(
        &self,
        session: &SessionContext,
        mut files: Vec<ObjectMeta>,
        columns: &[&str],
        mut set_aside: Option<&mut Vec<String>>,
    ) -> Result<Option<Arc<dyn TableProvider>>> {
        files.sort_by(|a, b| a.location.cmp(&b.location));
        let state = Arc::new(session.state());
        let looked = stream::iter(files.clone()).map(|file| {
            let (state, store) = (Arc::clone(&state), Arc::clone(&self.store));
            async move {
                let format = ParquetFormat::default();
                let schema = format.infer_schema(state.as_ref(), &store, &[file]).await;
                schema.map(|schema| unmarked_schema(&schema))
            }
        });
        let looked: Vec<_> = looked.buffered(LOOKS).collect().await;
        let (mut kept, mut known) = (Vec::new(), None);
        for (file, schema) in files.into_iter().zip(looked) {
            let problem = match schema {
                Err(error) if is_missing(&error) => return Err(Error::run(error)),
                Err(error) => format!("it is no Parquet file that can be read: {}", error.strip_backtrace()),
                Ok(schema) => match columns.iter().find(|column| schema.field_with_name(column).is_err()) {
                    Some(column) => format!("it has no column `{column}`"),
                    None => match merged(known.as_ref(), &schema) {
                        Ok(merged) => {
                            known = Some(merged);
                            kept.push(file);
                            continue;
                        }
                        Err(error) => {
                            format!(
                                "its columns are of other types than those of the files before, which columns of other \
                                 names would not be: {error}"
                            )
                        }
                    },
                },
            };
            let problem = format!("file `{}`: {problem}; move it out of the storage", file.location);
            match &mut set_aside {
                Some(set_aside) => set_aside.push(problem),
                None => return Err(Error::File(problem)),
            }
        }
        let Some(schema) = known else { return Ok(None) };
        let schema = nullable(&schema);
        Ok(Some(Arc::new(Files { schema, files: kept })))
    }
}

/// Knows the storage and nothing else: no SQL reaches the files of this machine, or other stores.
#[derive(Debug)]
struct OnlyStorage {
    url: ObjectStoreUrl,
    store: Arc<dyn ObjectStore>,
}

impl ObjectStoreRegistry for OnlyStorage {
    /// Nothing is added.
    fn register_store(&self, _: &Url, _: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, url: &Url) -> PlanResult<Arc<dyn ObjectStore>> {
        let own: &Url = self.url.as_ref();
        if (url.scheme(), url.host_str()) == (own.scheme(), own.host_str()) {
            return Ok(Arc::clone(&self.store));
        }
        plan_err!("queries reach nothing but the tables of the storage")
    }
}

/// Memory of one query over what has to be whole; beyond it DataFusion spills to disk.
pub(crate) const MEMORY: usize = 512 << 20;

/// Whether a time, in nanoseconds, is `from` or later and before `to`.
pub(crate) fn within(time: Expr, from: i64, to: i64) -> Expr {
    let at = |time| lit(ScalarValue::TimestampNanosecond(Some(time), None));
    time.clone().gt_eq(at(from)).and(time.lt(at(to)))
}

/// Columns of the archive.
pub(crate) const POINTS: [&str; 4] = ["name", "labels", "time", "value"];
/// Columns that every rollup has in the embedded store.
pub(crate) const VERSIONS: [&str; 2] = [sinks::parquet::VERSION, sinks::parquet::WITHDRAWN];
/// Files whose columns are looked at at once.
const LOOKS: usize = 16;

/// The columns of both. Where a column was an integer and is a float, or was one of another width,
/// it is read as a float.
fn merged(known: Option<&Schema>, schema: &Schema) -> std::result::Result<Schema, ArrowError> {
    let Some(known) = known else { return Ok(schema.clone()) };
    let widened = |schema: &Schema, other: &Schema| {
        let fields = schema.fields().iter().map(|field| {
            let other = other.field_with_name(field.name()).map_or(field.data_type(), Field::data_type);
            let differ = other != field.data_type() && other.is_numeric() && field.data_type().is_numeric();
            let field = field.as_ref().clone();
            if differ { field.with_data_type(DataType::Float64) } else { field }
        });
        Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone())
    };
    Schema::try_merge([widened(known, schema), widened(schema, known)])
}

/// The columns, each of which may be null: what is computed from one that never is may be null all
/// the same.
fn nullable(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Parquet files of one schema.
#[derive(Debug)]
struct Files {
    schema: SchemaRef,
    files: Vec<ObjectMeta>,
}

#[async_trait]
impl TableProvider for Files {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Statistics leave out what cannot match; the filter itself stays above.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> PlanResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let files: Vec<PartitionedFile> = self.files.iter().cloned().map(PartitionedFile::from).collect();
        if files.is_empty() {
            return Ok(Arc::new(EmptyExec::new(self.schema())));
        }
        let mut source = ParquetSource::new(self.schema());
        if let Some(filter) = conjunction(filters.to_vec()) {
            let schema = DFSchema::try_from(self.schema())?;
            source = source.with_predicate(state.create_physical_expr(filter, &schema)?);
        }
        let groups = FileGroup::new(files).split_files(state.config().target_partitions());
        let scan = FileScanConfigBuilder::new(ObjectStoreUrl::parse(STORE)?, Arc::new(source))
            .with_file_groups(groups)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(scan))
    }
}
