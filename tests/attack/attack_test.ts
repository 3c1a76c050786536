/**
 * Attacks that need the machine: each on a server of its own, at full size one after the other.
 *
 * @module
 */
import "./drain.ts";
import "./flood.ts";
import "./shares.ts";
import "./stuck.ts";
import "./frames.ts";
import "./fuzzing.ts";
