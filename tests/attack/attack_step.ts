/** The one test that these attacks are steps of. */
import { sized } from "../support/run.ts";
import { together } from "../support/together.ts";

/** Adds an attack; what takes long comes first. */
export const test = together("no attack stops a server, or what others do there", sized(8, 1));
