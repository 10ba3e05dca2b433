import assert from 'node:assert/strict';
import { after, before, describe, test, type TestContext } from 'node:test';
import { Containerd } from '../../src/containerd/client.ts';
import { messageOf } from '../../src/errors.ts';
import { attempt, image, importImage, must, runtime, stack, until } from '../system/support/stack.ts';
import { deliberate } from './deliberate.ts';
import { leftovers } from './leftovers.ts';
import { Killer } from './killer.ts';
import { installOci, oci } from './oci.ts';
import { type Names, normalEvent, normalText, normalValue } from './normal.ts';
import { Recorder, type TaskEvent } from './recorder.ts';
import type { Step } from './recorded.ts';
import { Stage } from './stage.ts';

/** One scenario: the moves, and how its recordings are compared. */
export interface Scenario {
  play(stage: Stage): Promise<unknown>;
  /** Processes end in no order of their own: events are compared for each process by itself. */
  unordered?: boolean;
  /** Default overlayfs. */
  snapshotter?: string;
  /** What containerd's own shim does not come to the end of with crun, so that there is nothing to compare with. */
  runcAlone?: string;
  /** Set where containerd goes away meanwhile, and with it events that nobody owes. */
  withoutEvents?: boolean;
}

const THEIRS = 'io.containerd.runc.v2';
const THEIR_PLAYS = 3;

/** The containerd, and who listens to it, while a file's scenarios are played. */
export interface House {
  readonly containerd: Containerd;
  readonly recorder: Recorder;
}
let house: House | undefined;
let killer: Killer | undefined;

export function theHouse(): House {
  if (house === undefined) throw new Error('no scenario is being played');
  return house;
}

/** Tests that each scenario goes the same way under containerd's own shim and under ours; `atOnce` of them at a time. */
export function scenarios(
  subject: string,
  table: Record<string, Scenario | Scenario['play']>,
  atOnce = 3,
): void {
  describe(subject, { concurrency: atOnce }, () => {
    before(async () => {
      installOci();
      await importImage();
      killer = await Killer.start();
      const containerd = new Containerd(stack.address);
      // Unpacks the image once, and starts the resident shim: no scenario is slower for being the first.
      for (const type of [THEIRS, runtime]) {
        const name = `parity-warm-${process.pid}`;
        await must('ctr', [
          'run',
          '--rm',
          '--null-io',
          '--snapshotter',
          'overlayfs',
          '--runtime',
          type,
          image,
          name,
          'true',
        ]);
      }
      try {
        house = { containerd, recorder: await Recorder.start(containerd) };
      } catch (error) {
        containerd.close();
        throw error;
      }
    });
    after(async () => {
      house?.recorder.close();
      house?.containerd.close();
      await killer?.stop();
      if (killer !== undefined) console.log('# ends of the worker:', killer.ends);
    });
    for (const [name, entry] of Object.entries(table)) {
      const scenario: Scenario = typeof entry === 'function' ? { play: entry } : entry;
      if (oci !== 'runc' && scenario.runcAlone !== undefined) continue;
      test(`${name}: as under containerd’s own shim`, (t) => compare(t, name, scenario));
    }
  });
}

/**
 * Plays a scenario once under our shim, and under containerd's own until one of its plays went as ours did. Theirs gives
 * different answers now and then (it may lose an event, or for ever the end of a process that was quick): any that it gives
 * is one that clients live with, but ours has to be among them at once.
 */
async function compare(t: TestContext, name: string, scenario: Scenario): Promise<void> {
  const ours = (await record(scenario, runtime)).join('\n').split('\n');
  assert.ok(ours.length > 0);
  let differences = '';
  for (let play = 1; play <= THEIR_PLAYS; play++) {
    const theirs = await record(scenario, THEIRS).catch((error: unknown) => [messageOf(error)]);
    differences = differencesOf(agreed(name, theirs), ours);
    if (differences === '') return;
    t.diagnostic(`play ${play} of containerd’s own shim differs:\n${differences}`);
  }
  assert.fail(`the recordings differ (< theirs, > ours):\n${differences}`);
}

async function record(scenario: Scenario, type: string): Promise<string[]> {
  const { containerd, recorder } = theHouse();
  const stage = new Stage(type, containerd, scenario.snapshotter ?? 'overlayfs');
  try {
    await scenario.play(stage).catch((error: unknown) => {
      // Without a cause, which the reporter would show in its place.
      throw new Error(`under ${type}, after "${stage.steps.at(-1)?.what}": ${messageOf(error)}`);
    });
    await strike(stage);
    const events = scenario.withoutEvents === true ? [] : await eventsOf(stage, recorder);
    const ordered = scenario.unordered === true ? byProcess(events) : events;
    const names = namesOf(stage, ordered);
    const left = await leftovers(stage.containers, [stage.fifos]);
    return [
      ...stage.steps.map((step) => normalStep(step, names)),
      ...ordered.map((event) => `event: ${normalEvent(event, event.containerId, names)}`),
      ...left.map((line) => `left: ${normalText(line, names)}`),
    ];
  } finally {
    for (const name of stage.containers) {
      await attempt('ctr', ['tasks', 'rm', '-f', name]);
      await attempt('ctr', ['containers', 'rm', name]);
    }
    stage.clear();
  }
}

/** Takes down what the scenario left standing; how that goes is part of the recording. */
async function strike(stage: Stage): Promise<void> {
  for (const name of stage.containers) {
    const { tasks, containers } = stage.api;
    const task = await tasks.get({ containerId: name, execId: '' }).catch(() => undefined);
    if (task !== undefined) await stage.ctr('tasks', 'rm', '-f', name);
    const container = await containers.get({ id: name }).catch(() => undefined);
    if (container !== undefined) await stage.ctr('containers', 'rm', name);
  }
}

/** All events of the scenario's containers, when the last that is due has come. */
async function eventsOf(stage: Stage, recorder: Recorder): Promise<TaskEvent[]> {
  const events = (): TaskEvent[] => stage.containers.flatMap((name) => recorder.of(name));
  const theirs = stage.runtime === THEIRS;
  const complete = (): boolean => stage.containers.every((name) => livesOf(recorder.of(name)).every(isOver));
  await until('the last event', () => (complete() ? true : undefined), theirs ? 1000 : 10_000).catch(
    () => undefined,
  );
  if (!theirs) return events();
  return stage.containers.flatMap((name) => livesOf(recorder.of(name)).flatMap(withDelete));
}

/** A container's events by task: each begins with its creation. */
function livesOf(events: readonly TaskEvent[]): TaskEvent[][] {
  const lives: TaskEvent[][] = [];
  for (const event of events) {
    const current = lives.at(-1);
    if (current === undefined || event.topic === '/tasks/create') lives.push([event]);
    else current.push(event);
  }
  return lives;
}

function isOver(life: readonly TaskEvent[]): boolean {
  const topics = life.map(({ topic }) => topic);
  return !topics.includes('/tasks/create') || topics.includes('/tasks/delete');
}

/**
 * The events of a task with that of its deletion where it is missing. containerd's own shim passes events on beside its
 * calls, and leaves when it is told to shut down, which is right after the answer to Delete: on a busy machine the last
 * event stays with it. What it says is known from the others. Ours has no such excuse, and gets no such help.
 */
function withDelete(life: readonly TaskEvent[]): TaskEvent[] {
  const [created] = life;
  if (created === undefined || isOver(life)) return [...life];
  const { containerId } = created;
  const exit = life.find(({ topic, fields }) => topic === '/tasks/exit' && fields['id'] === containerId);
  const { pid, exitStatus, exitedAt } = exit?.fields ?? { ...created.fields, exitStatus: 0 };
  return [...life, { topic: '/tasks/delete', containerId, fields: { pid, exitStatus, exitedAt, id: '' } }];
}

function namesOf(stage: Stage, events: readonly TaskEvent[]): Names {
  for (const { fields } of events) if (typeof fields['pid'] === 'number') stage.met(fields['pid']);
  const words = new Map([
    [stage.folder, '<folder>'],
    ...stage.containers.map((name, index): [string, string] => [name, `<c${index + 1}>`]),
  ]);
  return { words, pids: stage.pids };
}

function normalStep({ what, outcome }: Step, names: Names): string {
  const text = normalText(what, names);
  if (typeof outcome === 'string') return `${text}: ${normalText(outcome, names).trimEnd()}`;
  return `${text}: ${normalValue(outcome, names)}`;
}

function byProcess(events: readonly TaskEvent[]): TaskEvent[] {
  const process = ({ containerId, fields }: TaskEvent): string => {
    const { execId, id } = fields;
    const name = typeof execId === 'string' ? execId : typeof id === 'string' ? id : '';
    return `${containerId} ${name === containerId ? '' : name}`;
  };
  return [...events].sort((a, b) => (process(a) < process(b) ? -1 : process(a) > process(b) ? 1 : 0));
}

/** Their recording with what we do otherwise on purpose. */
function agreed(scenario: string, theirs: readonly string[]): string[] {
  const rules = deliberate.filter((rule) => rule.scenario === scenario && (rule.oci ?? oci) === oci);
  const text = rules.reduce((changed, rule) => changed.replace(rule.theirs, rule.ours), theirs.join('\n'));
  return text.split('\n');
}

/** The lines that differ, long ones around the place where they do; empty where none does. */
function differencesOf(theirs: readonly string[], ours: readonly string[]): string {
  const lines: string[] = [];
  for (let i = 0; i < Math.max(theirs.length, ours.length); i++) {
    const [one, other] = [theirs[i] ?? '(nothing)', ours[i] ?? '(nothing)'];
    if (one === other) continue;
    let same = 0;
    while (one[same] === other[same]) same++;
    const from = Math.max(0, same - 100);
    lines.push(`< ${one.slice(from, same + 400)}`, `> ${other.slice(from, same + 400)}`);
  }
  return lines.join('\n');
}
