# A unit or contract test is one file tests/{unit,contract}/**/NAME_test.c: found by the build, run by ctest.
find_library(CMOCKA_LIBRARY cmocka REQUIRED)
file(GLOB_RECURSE TEST_SOURCES CONFIGURE_DEPENDS tests/unit/*_test.c tests/contract/*_test.c)
foreach(source IN LISTS TEST_SOURCES)
  file(RELATIVE_PATH name ${CMAKE_SOURCE_DIR}/tests ${source})
  string(REGEX REPLACE "[/.]" "_" target "${name}")
  string(REGEX REPLACE "_test_c$" "" target "${target}")
  add_executable(${target} ${source})
  target_link_libraries(${target} PRIVATE room_api room_engine room_front room_agent room_worker room_movers room_serve ${CMOCKA_LIBRARY})
  add_test(NAME ${target} COMMAND ${target})
  set_tests_properties(${target} PROPERTIES TIMEOUT 120 LABELS unit
    ENVIRONMENT "QUIESCED_BIN=$<TARGET_FILE:quiesced>;QUIESCED_BUILD=${CMAKE_BINARY_DIR};QUIESCED_SOURCE=${CMAKE_SOURCE_DIR}")
endforeach()
