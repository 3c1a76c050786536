/**
 * A container image without a container program: a Dockerfile's steps make a folder, which a server
 * then has as its root, in namespaces of its own.
 *
 * @module
 */
import { assert } from "@std/assert";
import { dirname, resolve } from "node:path/posix";
import { ROOT, run, TestProcess } from "../support/process.ts";

/** Why no container can be started here; nothing where it can. */
export const MISSING_CONTAINERS: string = await canIsolate()
  ? ""
  : " [needs: root with the right to unshare, in Linux]";

async function canIsolate(): Promise<boolean> {
  await using probe = new TestProcess("unshare --mount --pid --fork --mount-proc true");
  return (await probe.status).success;
}

/** What a stage of a Dockerfile has made. */
class Stage {
  workdir = "/";
  user = "0:0";
  entrypoint: string[] = [];
  healthcheck: string[] = [];

  constructor(readonly root: string) {}

  /** Where a path of the image is on this machine. */
  path(path: string): string {
    return this.root + resolve(this.workdir, path);
  }
}

/** An image, and what runs in it. */
export class Image implements AsyncDisposable {
  private constructor(readonly folder: string, readonly stage: Stage) {}

  /**
   * Builds the last stage of a Dockerfile. Its base images are taken to have Deno and what Deno
   * loads, and its commands run on this machine in the folder of their stage.
   *
   * @param file from the project's folder, which is the context
   */
  static async build(file: string): Promise<Image> {
    const folder = await Deno.makeTempDir({ prefix: "parley-image-" });
    await Deno.chmod(folder, 0o755);
    const allowed = (await Deno.readTextFile(`${ROOT}${file}.dockerignore`))
      .split("\n").filter((line) => line.startsWith("!")).map((line) => line.slice(1));
    const stages = new Map<string, Stage>();
    let stage = new Stage("");
    for (const [instruction, text] of instructionsOf(await Deno.readTextFile(ROOT + file))) {
      const words = text.split(/\s+/);
      switch (instruction) {
        case "FROM":
          stage = new Stage(`${folder}/${stages.size}`);
          stages.set(words[2] ?? "", stage);
          await Deno.mkdir(`${stage.root}/proc`, { recursive: true });
          break;
        case "WORKDIR":
          stage.workdir = resolve(stage.workdir, text);
          await Deno.mkdir(stage.path("."), { recursive: true });
          break;
        case "COPY": {
          const flags = Object.fromEntries(
            words.filter((word) => word.startsWith("--")).map((word) => word.slice(2).split("=")),
          );
          const paths = words.filter((word) => !word.startsWith("--"));
          const target = paths.pop()!;
          const from = flags.from ? stages.get(flags.from)!.root : ROOT;
          if (!flags.from) assert(paths.every((path) => allowed.includes(path)), text);
          // A folder's content goes into a folder; a file goes under a name, or into a folder.
          const to = stage.path(target) + (target.endsWith("/") ? "/" : "");
          await Deno.mkdir(to.endsWith("/") ? to : dirname(to), { recursive: true });
          for (const path of paths) await copy(`${from}/${path}`, to);
          if (flags.chown) await run(`chown -R ${flags.chown} ${to}`);
          break;
        }
        case "RUN":
          await run(text, { cwd: stage.path(".") });
          break;
        case "USER":
          stage.user = text;
          break;
        case "ENTRYPOINT":
          stage.entrypoint = JSON.parse(text);
          break;
        case "HEALTHCHECK":
          stage.healthcheck = JSON.parse(text.replace(/^.*? CMD /, ""));
          break;
        case "EXPOSE":
          break;
        default:
          throw new Error(`${file}: ${instruction} is not known here`);
      }
    }
    await addDeno(stage.root);
    return new Image(folder, stage);
  }

  /** Starts the server. */
  start(env: Record<string, string>, ...flags: string[]): TestProcess {
    return this.#run([...this.stage.entrypoint, ...flags], env);
  }

  /** The exit code of the health check. */
  async check(env: Record<string, string>): Promise<number> {
    await using check = this.#run(this.stage.healthcheck, env);
    return (await check.status).code;
  }

  #run(command: string[], env: Record<string, string>): TestProcess {
    const { root, user, workdir } = this.stage;
    const [uid, gid] = user.split(":");
    const into = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    const as = [`--root=${root}`, `--setuid=${uid}`, `--setgid=${gid}`, `--wd=${workdir}`];
    const quoted = [...into, ...as, ...command].map((part) => `'${part.replaceAll("'", `'\\''`)}'`);
    return new TestProcess(`exec ${quoted.join(" ")}`, { env: { ...env, DENO_DIR: "/deno-dir" } });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Deno.remove(this.folder, { recursive: true });
  }
}

/** The first process in a container, as this machine counts. */
export async function firstProcess(container: TestProcess): Promise<number> {
  const { pid } = container;
  return Number(await Deno.readTextFile(`/proc/${pid}/task/${pid}/children`));
}

function instructionsOf(text: string): [string, string][] {
  return text.replace(/^#.*\n/gm, "").replace(/\\\n\s*/g, "").split("\n")
    .filter((line) => line.trim() !== "")
    .map((line) => [line.slice(0, line.indexOf(" ")), line.slice(line.indexOf(" ") + 1).trim()]);
}

/** Copies as COPY does: a folder's content, or a file. */
async function copy(from: string, to: string): Promise<void> {
  const { isDirectory } = await Deno.stat(from);
  if (isDirectory) await Deno.mkdir(to, { recursive: true });
  await run(isDirectory ? `cp -r ${from}/. ${to}` : `cp ${from} ${to}`);
}

/** Puts Deno and its libraries where the base image has them. */
async function addDeno(root: string): Promise<void> {
  const deno = Deno.execPath();
  const libraries = (await run(`ldd ${deno}`)).match(/\/\S+/g) ?? [];
  await Deno.mkdir(`${root}/bin`, { recursive: true });
  await Deno.copyFile(deno, `${root}/bin/deno`);
  for (const library of libraries) {
    await Deno.mkdir(dirname(root + library), { recursive: true });
    await Deno.copyFile(library, root + library);
  }
}
