// An empty program: what any Deno process takes to start.
export {};
