/* quiescectl completion SHELL: from the tables of commands and options, so that it cannot lag behind them. Ids and names are asked for
 * by `quiescectl completion words KIND` when they are wanted, at the daemon that the line names. */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "cli/answer.h"
#include "cli/ctl.h"
#include "cli/options.h"
#include "cli/words.h"

enum { PLACES = 3 }; /* of a command's arguments, of which something may be known */

typedef void (*each_fn)(const struct command *command);

static void each_command(each_fn fn)
{
    for (size_t t = 0; command_tables[t]; t++)
        for (size_t i = 0; i < command_tables[t]->n; i++)
            fn(&command_tables[t]->rows[i]);
}

/* Those options of every command that say which daemon is meant, and who calls. */
static bool is_of_target(const struct ctl_option *row)
{
    return row->id >= O_URL && row->id <= O_READY;
}

static void print_target_options(const char *before, const char *after)
{
    const char *between = "";
    for (const struct ctl_option *row = option_next("", NULL); row; row = option_next("", row))
        if (is_of_target(row)) {
            printf("%s%s--%s%s", between, before, row->name, after);
            between = "|";
        }
}

/* Options with a value of a known kind, each name once: `print` gets them. */
typedef void (*kind_fn)(const struct ctl_option *option, const char *kind);

static void each_option_kind(kind_fn print)
{
    char seen[512] = "|";
    for (size_t t = 0; command_tables[t]; t++)
        for (size_t i = 0; i < command_tables[t]->n; i++) {
            AUTO_FREE char *name = command_name(&command_tables[t]->rows[i]);
            for (const struct ctl_option *row = option_next(name, NULL); row; row = option_next(name, row)) {
                AUTO_FREE char *kind = row->value ? words_kind(row->value) : NULL, *key = str_new("|%s|", row->name);
                if (!kind || strstr(seen, key))
                    continue;
                size_t length = strlen(seen);
                str_format(seen + length, sizeof(seen) - length, "%s|", row->name);
                print(row, kind);
            }
        }
}

/* --- bash --- */

/* Words of the options of one command ("": of every command), or only of those that take a value, or a file. */
enum which { OPTION_ANY, OPTION_VALUE, OPTION_FILE };

static void print_options(const char *command, enum which which, const char *between)
{
    const char *before = "";
    for (const struct ctl_option *row = option_next(command, NULL); row; row = option_next(command, row)) {
        if ((which == OPTION_VALUE && !row->value) || (which == OPTION_FILE && !row->file))
            continue;
        printf("%s--%s", before, row->name);
        before = between;
    }
}

static void bash_group(const struct command *command)
{
    printf("%s ", command->group);
}

static void bash_name(const struct command *command)
{
    AUTO_FREE char *name = command_name(command);
    if (command->name)
        printf("    %s) names=\"$names %s\" ;;&\n", command->group, command->name);
    if (!option_next(name, NULL))
        return;
    if (command->name)
        printf("    %s) [ \"${2:-}\" != %s ] || own='", command->group, command->name);
    else
        printf("    %s) own='", command->group);
    print_options(name, OPTION_ANY, " ");
    puts("' ;;&");
}

static void option_valued(const struct command *command)
{
    AUTO_FREE char *name = command_name(command);
    for (const struct ctl_option *row = option_next(name, NULL); row; row = option_next(name, row))
        if (row->value)
            printf("|--%s", row->name);
}

static void sh_option_kind(const struct ctl_option *option, const char *kind)
{
    printf("    (--%s) kind='%s' ;;\n", option->name, kind);
}

/* "job show:0" and "restore:0": the words of the command, and how many of its own came before. */
static void sh_place_kinds(const struct command *command)
{
    AUTO_FREE char *name = command_name(command);
    for (int place = 0; place < PLACES; place++) {
        AUTO_FREE char *kind = words_kind_at(command, place);
        if (kind)
            printf("      ('%s:%d') kind='%s' ;;\n", name, place, kind);
    }
}

/* bash parts words at ":" and "=", too: here a word ends at a blank. */
static const char bash_words[] = "_quiescectl_split() {\n"
                                 "  local rest=${COMP_LINE-} one i\n"
                                 "  line=()\n"
                                 "  for ((i = 0; i <= COMP_CWORD; i++)); do\n"
                                 "    one=${COMP_WORDS[i]}\n"
                                 "    if [[ -n $rest && $i -gt 0 && $rest == \"$one\"* && -n $one ]]; then line[${#line[@]}-1]+=$one\n"
                                 "    else line+=(\"$one\"); rest=${rest#\"${rest%%[![:space:]]*}\"}; fi\n"
                                 "    rest=${rest#\"$one\"}\n"
                                 "  done\n"
                                 "}\n"
                                 "_quiescectl_words() {\n"
                                 "  local one rest=$word\n"
                                 "  [[ ${COMP_WORDS[COMP_CWORD]} == [=:] ]] || rest=${word%\"${COMP_WORDS[COMP_CWORD]}\"}\n"
                                 "  COMPREPLY=()\n"
                                 "  while IFS=$'\\t' read -r one _; do\n"
                                 "    one=$(printf %q \"$one\")\n"
                                 "    [[ $one != \"$word\"* ]] || COMPREPLY+=(\"${one#\"$rest\"}\")\n"
                                 "  done < <(\"${line[0]}\" \"${asked[@]}\" completion words \"$1\" 2>/dev/null)\n"
                                 "}";

/* What a word before the last one makes of it: a file, or something that is known. */
static void bash_values(void)
{
    fputs("  case $before in ", stdout);
    print_options("", OPTION_FILE, "|");
    puts("|--path|--exclude) mapfile -t COMPREPLY < <(compgen -f -- \"$word\"); return ;; esac\n  case $before in");
    each_option_kind(sh_option_kind);
    puts("  esac\n  if [ -n \"$kind\" ]; then _quiescectl_words \"$kind\"; return; fi");
}

static void bash(void)
{
    puts(bash_words);
    puts("_quiescectl() {\n"
         "  local -a line=() asked=()\n"
         "  _quiescectl_split\n"
         "  local last=$((${#line[@]} - 1)) names='' own='' kind='' i\n"
         "  local word=${line[last]} before=${line[last-1]} key\n"
         "  if [[ $word == --*=* ]]; then before=${word%%=*} word=${word#*=}; fi\n"
         "  set --\n"
         "  for ((i = 1; i < last; i++)); do\n    case ${line[i]} in");
    fputs("    ", stdout);
    print_target_options("", "");
    fputs(") asked+=(\"${line[i]}\" \"${line[i+1]}\") ;;&\n    ", stdout);
    print_target_options("", "=*");
    fputs(") asked+=(\"${line[i]}\") ;;&\n    ", stdout);
    print_options("", OPTION_VALUE, "|");
    each_command(option_valued);
    puts(") i=$((i + 1)) ;; -*) ;; *) set -- \"$@\" \"${line[i]}\" ;; esac\n  done");
    bash_values();
    fputs("  if [ -z \"${1:-}\" ] && [[ $word != -* ]]; then mapfile -t COMPREPLY < <(compgen -W '", stdout);
    each_command(bash_group);
    puts("' -- \"$word\" | sort -u); return; fi\n  case ${1:-} in");
    each_command(bash_name);
    fputs("    *) ;;\n  esac\n  if [[ $word == -* ]]; then mapfile -t COMPREPLY < <(compgen -W \"$own ", stdout);
    print_options("", OPTION_ANY, " ");
    puts("\" -- \"$word\"); return; fi\n"
         "  for key in \"${1:-} ${2:-}:$(($# - 2))\" \"${1:-}:$(($# - 1))\"; do\n    [ -n \"$kind\" ] || case $key in");
    each_command(sh_place_kinds);
    puts("    esac\n  done\n"
         "  [ -z \"${2:-}\" ] || names=''\n"
         "  if [ -n \"$kind\" ] && [ -z \"$names\" ]; then _quiescectl_words \"$kind\"; return; fi\n"
         "  mapfile -t COMPREPLY < <(compgen -W \"$names\" -- \"$word\")\n}\ncomplete -o default -F _quiescectl quiescectl");
}

/* --- zsh --- */

/* 'NAME:MEANING' for _describe, in single quotes. */
static void zsh_pair(const char *before, const char *name, const char *meaning)
{
    printf("'%s%s:", before, name);
    for (const char *c = meaning; *c; c++)
        fputs(*c == '\'' ? "`" : *c == ':' ? "\\:" : (char[]){*c, '\0'}, stdout);
    fputs("' ", stdout);
}

static void zsh_options(const char *command)
{
    for (const struct ctl_option *row = option_next(command, NULL); row; row = option_next(command, row))
        zsh_pair("--", row->name, row->meaning);
}

static void zsh_group(const struct command *command)
{
    zsh_pair("", command->group, command->name ? "" : command->summary);
}

static void zsh_name(const struct command *command)
{
    AUTO_FREE char *name = command_name(command);
    if (command->name) {
        printf("    (%s) names+=(", command->group);
        zsh_pair("", command->name, command->summary);
        puts(") ;|");
    }
    if (!option_next(name, NULL))
        return;
    printf("    (%s) [[ '%s' != '' && $name != '%s' ]] || options+=(", command->group, command->name ? command->name : "", command->name ? command->name : "");
    zsh_options(name);
    puts(") ;|");
}

static void zsh(void)
{
    fputs("#compdef quiescectl\ncompdef _quiescectl quiescectl\n"
          "_quiescectl_words() {\n"
          "  local -a known\n"
          "  local one\n"
          "  for one in ${(f)\"$(${(Q)words[1]} $asked completion words $1 2>/dev/null)\"}; do [[ -z $one ]] || known+=(\"${${one%%$'\\t'*}//:/\\\\:}:${one#*$'\\t'}\"); done\n"
          "  (( ! $#known )) || _describe word known\n"
          "}\n"
          "_quiescectl() {\n"
          "  local -a groups names options asked given\n"
          "  local i kind='' key group='' name=''\n"
          "  for ((i = 2; i < CURRENT; i++)); do\n"
          "    case $words[i] in\n      (",
          stdout);
    print_target_options("", "");
    fputs(") asked+=(\"${(Q)words[i]}\" \"${(Q)words[i+1]}\") ;|\n      (", stdout);
    print_target_options("", "=*");
    fputs(") asked+=(\"${(Q)words[i]}\") ;|\n      (", stdout);
    print_options("", OPTION_VALUE, "|");
    each_command(option_valued);
    fputs(") ((i++)) ;;\n      (-*) ;;\n      (*) given+=($words[i]) ;;\n    esac\n  done\n"
          "  group=$given[1] name=$given[2]\n"
          "  case $words[CURRENT-1] in (",
          stdout);
    print_options("", OPTION_FILE, "|");
    puts("|--path|--exclude) _files; return ;; esac\n  case $words[CURRENT-1] in");
    each_option_kind(sh_option_kind);
    fputs("  esac\n  if [[ -n $kind ]]; then _quiescectl_words $kind; return; fi\n  options=(", stdout);
    zsh_options("");
    fputs(")\n  groups=(", stdout);
    each_command(zsh_group);
    puts(")\n  case $group in");
    each_command(zsh_name);
    puts("    (*) ;;\n  esac\n"
         "  for key in \"$group $name:$(($#given - 2))\" \"$group:$(($#given - 1))\"; do\n    [[ -n $kind ]] || case $key in");
    each_command(sh_place_kinds);
    puts("    esac\n  done\n"
         "  if [[ $PREFIX == -* ]]; then _describe -o option options\n"
         "  elif [[ -z $group ]]; then _describe command groups\n"
         "  elif [[ -z $name && $#names -gt 0 ]]; then _describe command names\n"
         "  elif [[ -n $kind ]]; then _quiescectl_words $kind\n"
         "  else _default\n  fi\n}\n"
         "if [[ $funcstack[1] == _quiescectl ]]; then _quiescectl \"$@\"; fi");
}

/* --- fish --- */

/* In single quotes. */
static char *quoted(const char *text)
{
    char *copy = str_dup(text);
    for (char *c = copy; *c; c++)
        *c = *c == '\'' || *c == '\\' ? '`' : *c;
    return copy;
}

static void fish_options(const char *command, const char *condition)
{
    for (const struct ctl_option *row = option_next(command, NULL); row; row = option_next(command, row)) {
        AUTO_FREE char *meaning = quoted(row->meaning), *kind = row->value ? words_kind(row->value) : NULL;
        AUTO_FREE char *words = kind ? str_new(" -a '(__quiescectl_words \"%s\")'", kind) : str_dup("");
        printf("complete -c quiescectl%s -l %s%s%s -d '%s'\n", condition, row->name, row->file ? " -r -F" : row->value ? " -x" : "", words, meaning);
    }
}

/* Is the line so far this command, with so many of its own words? "*" stands for one. */
static void fish_places(const struct command *command)
{
    AUTO_FREE char *words = command_name(command);
    for (int place = 0; place < PLACES; place++) {
        AUTO_FREE char *kind = words_kind_at(command, place), *before = words;
        if (kind)
            printf("complete -c quiescectl -f -n '__quiescectl_is %s' -a '(__quiescectl_words \"%s\")'\n", words, kind);
        words = str_new("%s \"*\"", before);
    }
}

static void fish_row(const struct command *command)
{
    AUTO_FREE char *summary = quoted(command->summary), *name = command_name(command);
    AUTO_FREE char *condition = str_new(" -n '__fish_seen_subcommand_from %s%s%s'", command->group, command->name ? "; and __fish_seen_subcommand_from " : "",
                                        command->name ? command->name : "");
    if (command->name)
        printf("complete -c quiescectl -f -n '__quiescectl_is %s' -a %s -d '%s'\n", command->group, command->name, summary);
    printf("complete -c quiescectl -f -n __quiescectl_is -a %s -d '%s'\n", command->group, command->name ? "" : summary);
    fish_options(name, condition);
    fish_places(command);
}

static void fish_valued(const struct command *command)
{
    AUTO_FREE char *name = command_name(command);
    for (const struct ctl_option *row = option_next(name, NULL); row; row = option_next(name, row))
        if (row->value)
            printf(" --%s", row->name);
}

static void fish(void)
{
    puts("function __quiescectl_line\n"
         "  set -g __quiescectl_given\n"
         "  set -g __quiescectl_asked\n"
         "  set -l line (commandline -opc)\n"
         "  set -l i 2\n"
         "  while test $i -le (count $line)\n"
         "    switch $line[$i]");
    fputs("      case", stdout);
    for (const struct ctl_option *row = option_next("", NULL); row; row = option_next("", row))
        if (is_of_target(row))
            printf(" '--%s=*'", row->name);
    fputs("\n        set -a __quiescectl_asked $line[$i]\n"
          "      case '--*=*'\n"
          "      case",
          stdout);
    for (const struct ctl_option *row = option_next("", NULL); row; row = option_next("", row))
        if (is_of_target(row))
            printf(" --%s", row->name);
    fputs("\n        set -a __quiescectl_asked $line[$i] $line[(math $i + 1)]\n        set i (math $i + 1)\n      case --limit", stdout);
    each_command(fish_valued);
    puts("\n        set i (math $i + 1)\n"
         "      case '-*'\n"
         "      case '*'\n"
         "        set -a __quiescectl_given $line[$i]\n"
         "    end\n"
         "    set i (math $i + 1)\n"
         "  end\n"
         "end\n"
         "function __quiescectl_is\n"
         "  __quiescectl_line\n"
         "  test (count $argv) -eq (count $__quiescectl_given); or return 1\n"
         "  test (count $argv) -eq 0; or string match -q -- \"$argv\" \"$__quiescectl_given\"\n"
         "end\n"
         "function __quiescectl_words\n"
         "  __quiescectl_line\n"
         "  set -l line (commandline -opc)\n"
         "  command -q $line[1]; and $line[1] $__quiescectl_asked completion words $argv[1] 2>/dev/null\n"
         "end");
    each_command(fish_row);
    fish_options("", "");
}

/* The same as a document. */
static void print_json(const char *shell, void (*print)(void))
{
    char *script = NULL;
    size_t size = 0;
    FILE *real = stdout;
    stdout = open_memstream(&script, &size);
    if (stdout) {
        print();
        fclose(stdout);
    }
    stdout = real;
    AUTO_JSON json_t *document = json_pack("{s:s, s:s?}", "shell", shell, "script", script);
    free(script);
    answer_print(document);
}

static int completion(struct ctl *ctl, int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*print)(void);
    } shells[] = {{"bash", bash}, {"zsh", zsh}, {"fish", fish}};
    if (argc == 2 && str_eq(argv[0], "words"))
        return words_print(ctl, argv[1]);
    for (size_t i = 0; argc == 1 && i < ELEMENTS(shells); i++)
        if (str_eq(shells[i].name, argv[0])) {
            if (ctl->json)
                print_json(argv[0], shells[i].print);
            else
                shells[i].print();
            return CTL_OK;
        }
    return ctl_usage("completion takes bash, zsh or fish; or words, and of what");
}

static const struct command rows[] = {
    {"completion", NULL, "bash|zsh|fish | words KIND", "print the shell's completion, or the words that it asks for", completion},
};
const struct command_table commands_completion = {rows, ELEMENTS(rows)};
