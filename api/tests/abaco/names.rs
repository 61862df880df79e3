//! The names of what is sent and shown, as they are written in either letter case.

/// Every name of more than one word, as both letter cases have it.
const NAMES: [(&str, &str); 70] = [
    ("actor_dbid", "actorDbid"),
    ("actor_id", "actorId"),
    ("actors_no_workers", "actorsNoWorkers"),
    ("api_server", "apiServer"),
    ("busy_workers", "busyWorkers"),
    ("ch_name", "chName"),
    ("count_returned", "countReturned"),
    ("create_time", "createTime"),
    ("cron_next_ex", "cronNextEx"),
    ("cron_on", "cronOn"),
    ("cron_schedule", "cronSchedule"),
    ("current_uses", "currentUses"),
    ("db_id", "dbId"),
    ("default_environment", "defaultEnvironment"),
    ("error_workers", "errorWorkers"),
    ("execution_id", "executionId"),
    ("executor_gid", "executorGid"),
    ("executor_uid", "executorUid"),
    ("exit_code", "exitCode"),
    ("final_state", "finalState"),
    ("finish_time", "finishTime"),
    ("host_id", "hostId"),
    ("host_ip", "hostIp"),
    ("host_name", "hostName"),
    ("is_secret", "isSecret"),
    ("last_execution_time", "lastExecutionTime"),
    ("last_health_check_time", "lastHealthCheckTime"),
    ("last_update_time", "lastUpdateTime"),
    ("last_use_time", "lastUseTime"),
    ("log_ex", "logEx"),
    ("max_cpus", "maxCpus"),
    ("max_run_time", "maxRunTime"),
    ("max_uses", "maxUses"),
    ("max_workers", "maxWorkers"),
    ("mem_limit", "memLimit"),
    ("message_received_time", "messageReceivedTime"),
    ("peak_memory", "peakMemory"),
    ("ready_workers", "readyWorkers"),
    ("record_limit", "recordLimit"),
    ("records_skipped", "recordsSkipped"),
    ("remaining_uses", "remainingUses"),
    ("requested_workers", "requestedWorkers"),
    ("run_as_executor", "runAsExecutor"),
    ("start_time", "startTime"),
    ("status_message", "statusMessage"),
    ("total_actors_all", "totalActorsAll"),
    ("total_actors_all_with_executions", "totalActorsAllWithExecutions"),
    ("total_actors_existing", "totalActorsExisting"),
    ("total_actors_existing_with_executions", "totalActorsExistingWithExecutions"),
    ("total_count", "totalCount"),
    ("total_cpu", "totalCpu"),
    ("total_execution_cpu", "totalExecutionCpu"),
    ("total_execution_cpu_all", "totalExecutionCpuAll"),
    ("total_execution_cpu_existing", "totalExecutionCpuExisting"),
    ("total_execution_io", "totalExecutionIo"),
    ("total_execution_io_all", "totalExecutionIoAll"),
    ("total_execution_io_existing", "totalExecutionIoExisting"),
    ("total_execution_runtime", "totalExecutionRuntime"),
    ("total_execution_runtime_all", "totalExecutionRuntimeAll"),
    ("total_execution_runtime_existing", "totalExecutionRuntimeExisting"),
    ("total_executions", "totalExecutions"),
    ("total_executions_all", "totalExecutionsAll"),
    ("total_executions_existing", "totalExecutionsExisting"),
    ("total_io", "totalIo"),
    ("total_runtime", "totalRuntime"),
    ("total_workers", "totalWorkers"),
    ("use_container_uid", "useContainerUid"),
    ("worker_id", "workerId"),
    // The same in both.
    ("_links", "_links"),
    ("_metadata", "_metadata"),
];

/// What only v3 has.
pub(crate) const OF_V3: [&str; 3] = ["run_as_executor", "executor_uid", "executor_gid"];

/// A name as it is in that letter case.
pub(crate) fn named(name: &str, is_snake: bool) -> String {
    match NAMES.iter().find(|(snake, _)| *snake == name) {
        Some((_, camel)) if !is_snake => (*camel).to_owned(),
        Some(_) => name.to_owned(),
        None => {
            assert!(!name.contains('_'), "{name} is in no table");
            name.to_owned()
        }
    }
}
