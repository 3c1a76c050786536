/** The one test that all faults are steps of. */
import { sized } from "../support/run.ts";
import { together } from "../support/together.ts";

/** Adds a fault; what takes long comes first. */
export const addFault = together("no fault loses an ack", sized(8, 1));
