/**
 * Faults that no ack may be lost by. Each has processes, disks and networks of its own, so all are
 * tried at the same time.
 *
 * @module
 */
import "./servers_faults.ts";
import "./durable_faults.ts";
import "./redis_cluster_faults.ts";
import "./redis_faults.ts";
import "./disk_faults.ts";
