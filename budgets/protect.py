"""What no call writes unless ``write`` names it exactly: files that make other programs run things.

A repository's hooks, an editor's tasks and an agent's settings are run by the user's own tools, outside of
any sandbox, once the changes are applied; so are shell start files and package managers' settings. Each name
is protected at any depth, with everything below it, and also where nothing of that name exists yet.
"""

from __future__ import annotations

from typing import Final

_VERSION_CONTROL: Final = (
    ".git",
    ".hg",
    ".svn",
    ".bzr",
    ".jj",
    ".gitmodules",
    ".gitconfig",
    ".hgrc",
    ".husky",
)
_AGENTS: Final = (
    ".claude",
    ".codex",
    ".cursor",
    ".cursorrules",
    ".gemini",
    ".qwen",
    ".opencode",
    ".hermes",
    ".agents",
    ".aider.conf.yml",
    ".cline",
    ".clinerules",
    ".continue",
    ".roo",
    ".windsurf",
    ".windsurfrules",
    ".mcp.json",
)
_EDITORS: Final = (
    ".vscode",
    ".idea",
    ".zed",
    ".fleet",
    ".devcontainer",
    ".vimrc",
    ".exrc",
    ".nvim.lua",
    ".nvimrc",
    ".emacs",
    ".emacs.d",
    ".dir-locals.el",
    ".gdbinit",
    ".lldbinit",
)
_SHELLS: Final = (
    ".envrc",
    ".bashrc",
    ".bash_profile",
    ".bash_login",
    ".bash_logout",
    ".bash_aliases",
    ".profile",
    ".zshrc",
    ".zprofile",
    ".zshenv",
    ".zlogin",
    ".zlogout",
    ".kshrc",
    ".cshrc",
    ".tcshrc",
    ".login",
    ".inputrc",
    ".pam_environment",
    ".ripgreprc",
)
_KEYS_AND_PACKAGES: Final = (
    ".ssh",
    ".gnupg",
    ".netrc",
    ".npmrc",
    ".yarnrc",
    ".yarnrc.yml",
    ".pnpmfile.cjs",
    ".pypirc",
    ".pre-commit-config.yaml",
)
_CONTINUOUS_INTEGRATION: Final = (".github/workflows", ".github/actions", ".gitlab-ci.yml", ".circleci")

DEFAULT_PROTECT: Final[tuple[str, ...]] = tuple(
    f"**/{name}"
    for name in (
        *_VERSION_CONTROL,
        *_AGENTS,
        *_EDITORS,
        *_SHELLS,
        *_KEYS_AND_PACKAGES,
        *_CONTINUOUS_INTEGRATION,
    )
)
