// Names for the contract's schemas. contract.d.ts is generated from openapi.yaml (npm run types).
import type { components } from "./contract";

type Schemas = components["schemas"];
export type Backup = Schemas["Backup"];
export type BackupCreate = Schemas["BackupCreate"];
export type BackupType = Schemas["BackupType"];
export type Certificate = Schemas["Certificate"];
export type Component = Schemas["Component"];
export type Consistency = Schemas["Consistency"];
export type Grade = Schemas["ConsistencyGrade"];
export type Enrolment = Schemas["Enrolment"];
export type FreezeWindow = Schemas["FreezeWindow"];
export type Job = Schemas["Job"];
export type JobState = Schemas["JobState"];
export type LoggedError = Schemas["LoggedError"];
export type Plan = Schemas["Plan"];
export type PlugIn = Schemas["PlugIn"];
export type Problem = Schemas["Problem"];
export type Repository = Schemas["Repository"];
export type Role = Schemas["Role"];
export type Session = Schemas["Session"];
export type SessionState = Schemas["SessionState"];
export type SessionWriter = Schemas["SessionWriter"];
export type Snapshot = Schemas["Snapshot"];
export type Token = Schemas["Token"];
export type Volume = Schemas["Volume"];
export type Writer = Schemas["Writer"];
export type WriterStatus = Schemas["WriterStatus"];

export type Login = Schemas["Login"];

/** GET /writers: a component as its writer offers it. */
export interface OfferedComponent {
  type: string;
  logical_path: string;
  name: string;
  caption: string | null;
  selectable: boolean;
  file_sets: { path: string; spec: string; recursive: boolean }[];
}

export const offered = (writer: Writer): OfferedComponent[] => (writer.components ?? []) as unknown as OfferedComponent[];
